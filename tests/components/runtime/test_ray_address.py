"""A cluster's address is looked at before anything is begun: what can be none, who answers there, and by which way."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from components.runtime.cluster import check_cluster
from components.runtime.ray_address import check_address
from core.errors import BadInput


@pytest.fixture(scope="module")
def grpc_port() -> Iterator[int]:
    """Of a server that speaks gRPC, as Ray does."""
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(None).wait()


@pytest.mark.parametrize(
    "address",
    ["ray://[::1", "ray://::1:6379", "ray://[]:6379", "ray://:6379", "[::1:6379", "ray://host", "ray://host:" + "9" * 5000],
    ids=lambda address: address[:20],
)
def test_what_can_be_no_address(address: str) -> None:
    with pytest.raises(BadInput, match="must be host:port"):
        check_address(address)


@pytest.mark.parametrize("host", ["host..name", "a" * 70, f"{'b' * 64}.example", "no-such-host.invalid"])
@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_name_that_no_host_has(scheme: str, host: str) -> None:
    with pytest.raises(BadInput, match=r"RAY_ADDRESS=.*(nothing answers|must be)") as refusal:
        check_address(f"{scheme}{host}:6379")
    assert "\n" not in str(refusal.value)


def test_a_proxy_for_pages_is_no_way_to_a_cluster(grpc_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        for name in ("http_proxy", "https_proxy", "grpc_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{nobody.getsockname()[1]}")
        for name in ("no_proxy", "no_grpc_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        check_address(f"ray://127.0.0.1:{grpc_port}")


def test_a_cluster_is_looked_for_before_anything_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    for own in ("", "local"):
        monkeypatch.setenv("RAY_ADDRESS", own)
        check_cluster()
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setenv("RAY_ADDRESS", f"ray://127.0.0.1:{nobody.getsockname()[1]}")
        with pytest.raises(BadInput, match="nothing answers"):
            check_cluster()
