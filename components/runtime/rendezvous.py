"""How training workers find each other: on one machine by a file in a private folder, so that no port is open for it.

torch's own way is a key-value server on every network interface, which answers anyone without a token. Workers on several
machines have no other. The controller, which loads this module, does without torch: that would take it two seconds more.
"""

from __future__ import annotations

import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError
from ray.train.backend import Backend, BackendConfig

# Workers that do not let go of each other in this time are ended all the same.
LEAVING_S = 30


def backend_config(backend: str, folder: Path | None) -> BackendConfig:
    """backend: gloo or nccl. folder: one that only this user may enter, on the workers' one machine; None for several."""
    if folder is not None:
        return FileConfig(backend, str(folder))
    from ray.train.torch import TorchConfig

    return TorchConfig(backend=backend)


@dataclass
class FileConfig(BackendConfig):
    """A group of torch.distributed with a file in `folder` for its meeting place; an operation may take timeout_s seconds."""

    backend: str
    folder: str
    timeout_s: int = 1800

    @property
    def backend_cls(self) -> type[Backend]:
        """What Ray Train sets the process group up by."""
        return FileBackend

    @property
    def train_func_context(self) -> Any:
        """Ray's own around the training function: it chooses the worker's GPU."""
        from ray.train.torch.config import TorchConfigContextManager

        return TorchConfigContextManager


class FileBackend(Backend):
    """As Ray's backend for torch, but for the start."""

    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        """A new file for every group: workers of a killed one left their own behind."""
        assert isinstance(backend_config, FileConfig)
        settings = {
            "backend": backend_config.backend,
            "world_size": len(worker_group),
            "init_method": f"file://{backend_config.folder}/rendezvous-{uuid.uuid4().hex}",
            "timeout_s": backend_config.timeout_s,
        }
        ray.get([worker_group.execute_single_async(rank, _join, rank, settings) for rank in range(len(worker_group))])

    def on_shutdown(self, worker_group: Any, backend_config: BackendConfig) -> None:
        """Every worker leaves the group."""
        with suppress(GetTimeoutError):
            ray.get(worker_group.execute_async(_leave, len(worker_group) > 1), timeout=LEAVING_S)


def _join(rank: int, settings: dict[str, Any]) -> None:
    from ray.train.torch.config import _set_torch_distributed_env_vars, _setup_torch_process_group

    _set_torch_distributed_env_vars()
    _setup_torch_process_group(world_rank=rank, **settings)


def _leave(has_others: bool) -> None:
    from ray.train.torch.config import _shutdown_torch

    _shutdown_torch(destroy_process_group=has_others)
