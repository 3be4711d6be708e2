"""Ray Train on a cluster of this machine alone, without the processes that would have nothing to do there.

Ray starts four beside the controller and the workers of every try, and each loads Ray Train: two seconds of a core. They hand
out Ray's own datasets, ask for more machines, watch for machines that leave, and give back what a lost controller held.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from ray.train import Result
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.callback import RayTrainCallback
from ray.train.v2._internal.execution.context import TrainRunContext
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

IDLE_HERE = (DatasetsCallback, PlacementGroupCleanerCallback)


class InterruptibleTrainer(DataParallelTrainer):
    """Leaves an interrupt to Python: Ray's own handler ends the process, with exit code 0."""

    def _register_sigint_handler(self, controller: object) -> None:
        return


class LoneTrainer(InterruptibleTrainer):
    """The watcher of machines is switched off by an environment variable, in `cluster.OWN_CLUSTER`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # The controller would load whatever the workers' settings are made of, for no use of its own.
        self.train_run_context = dataclasses.replace(self.train_run_context, train_loop_config=None)

    def _create_default_callbacks(self) -> list[RayTrainCallback]:
        return [callback for callback in super()._create_default_callbacks() if not isinstance(callback, IDLE_HERE)]

    def _initialize_and_run_controller(self, **arguments: Any) -> Result:
        return super()._initialize_and_run_controller(**arguments | {"scaling_policy": AsManyAsThereAre(self.scaling_config)})


class AsManyAsThereAre(FixedScalingPolicy):
    """A fixed number of workers, and nobody is asked for more machines."""

    def after_controller_start(self, train_run_context: TrainRunContext) -> None:
        """Nothing is registered, so that nothing is cancelled at the end."""

    def _maybe_send_resource_request(self) -> None:
        return
