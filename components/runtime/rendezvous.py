"""How training workers find each other: on one machine by a file in a private folder, so that no port is open for it.

torch's own way is a key-value server on every network interface, which answers anyone without a token. Workers on several
machines have no other.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.train.torch import TorchConfig
from ray.train.torch.config import _set_torch_distributed_env_vars, _setup_torch_process_group, _TorchBackend


def torch_config(backend: str, folder: Path | None) -> TorchConfig:
    """backend: gloo or nccl. folder: one that only this user may enter, on the workers' one machine; None for several."""
    return TorchConfig(backend=backend) if folder is None else FileTorchConfig(backend=backend, folder=str(folder))


@dataclass
class FileTorchConfig(TorchConfig):
    """Ray's torch backend with a file for its meeting place."""

    folder: str = ""

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        """What Ray Train sets the process group up by."""
        return FileTorchBackend


class FileTorchBackend(_TorchBackend):
    """What differs from Ray's is the start alone."""

    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        """A new file for every group: workers of a killed one left their own behind."""
        assert isinstance(backend_config, FileTorchConfig)
        settings = {
            "backend": backend_config.backend,
            "world_size": len(worker_group),
            "init_method": f"file://{backend_config.folder}/rendezvous-{uuid.uuid4().hex}",
            "timeout_s": backend_config.timeout_s,
        }
        worker_group.execute(_set_torch_distributed_env_vars)
        started: Any = [
            worker_group.execute_single_async(rank, _setup_torch_process_group, world_rank=rank, **settings)
            for rank in range(len(worker_group))
        ]
        ray.get(started)
