"""Processes are as many as the machine or the cluster has devices, unless the environment says otherwise."""

from __future__ import annotations

import os

import pytest
import torch

from components.runtime import cluster, devices
from core.errors import BadInput


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5"])
def test_a_number_of_workers_must_be_one(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSFUSION_NUM_WORKERS", text)
    with pytest.raises(BadInput, match="TRANSFUSION_NUM_WORKERS"):
        devices.num_training_workers()


def test_devices_are_the_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster that claims GPUs, which this process has not: it is asked, and not torch."""
    import ray

    ray.shutdown()
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    ray.init(address="local", num_cpus=5, num_gpus=3, include_dashboard=False, _node_ip_address="127.0.0.1")
    try:
        assert devices.devices_of(ray.cluster_resources()) == (3, 5)
        assert devices.devices() == (torch.cuda.device_count(), os.cpu_count()), "a cluster of this machine alone"
        monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
        assert (devices.num_training_workers(), devices.num_map_actors()) == (3, 3)
        assert (devices.gpu_share(2), devices.gpu_share(6)) == (1.0, 0.5)
        monkeypatch.setenv("TRANSFUSION_NUM_WORKERS", "4")
        with pytest.raises(BadInput, match="TRANSFUSION_NUM_WORKERS=4 is more than the 3 GPUs there are"):
            devices.num_training_workers()
    finally:
        ray.shutdown()


def test_numbers_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSFUSION_NUM_WORKERS", "3")
    monkeypatch.setenv("TRANSFUSION_NUM_ACTORS", "5")
    assert (devices.num_training_workers(), devices.num_map_actors()) == (3, 5)
    monkeypatch.delenv("TRANSFUSION_NUM_ACTORS")
    assert devices.num_map_actors() >= 1
    assert devices.devices_of({"CPU": 4.0}) == (0, 4)
    assert cluster.device().type == ("cuda" if torch.cuda.is_available() else "cpu")
