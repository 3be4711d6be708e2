"""The Ray cluster that RAY_ADDRESS names, looked for within seconds: Ray itself waits for minutes, and says little then."""

from __future__ import annotations

import os
import socket

from components.runtime.diagnosis import first_line
from core.errors import BadInput

CONNECT_S = 5.0
CLIENT = "ray://"
REMEDY = "start the cluster, correct RAY_ADDRESS, or unset it for a cluster of this machine alone"


def check_address(address: str) -> None:
    """Raise BadInput unless something that talks as Ray does answers at `address`: auto, host:port or ray://host:port."""
    host, port = _host_and_port(address)
    where = host if host in address else f"{host}, which Ray puts in the place of the host given,"
    try:
        socket.create_connection((host, port), timeout=CONNECT_S).close()
    except (OSError, UnicodeError) as error:
        # A name that holds what none may (an empty part, one of over 63 letters) cannot be asked for.
        reason = "no host has such a name" if isinstance(error, UnicodeError) else error.strerror or "no answer"
        raise BadInput(f"RAY_ADDRESS={address}: nothing answers at {where} port {port} ({reason}); {REMEDY}") from None
    if not _talks_as_ray(host, port):
        raise BadInput(f"RAY_ADDRESS={address}: what answers at {where} port {port} is no Ray; {REMEDY}")


def refusal(address: str, error: Exception) -> BadInput:
    """What is to be said when a cluster that answers cannot be joined; Ray has no one exception for a wrong token."""
    return BadInput(
        f"RAY_ADDRESS={address}: the cluster cannot be joined ({first_line(error)}); give its token in RAY_AUTH_TOKEN or "
        "~/.ray/auth_token, RAY_AUTH_MODE as the cluster has it, and the same version of Ray"
    )


def _host_and_port(address: str) -> tuple[str, int]:
    """Where Ray will connect to: it looks for `auto`, and takes this machine's own address for 127.0.0.1."""
    from ray._private.services import canonicalize_bootstrap_address

    try:
        if address.startswith(CLIENT):
            found: str | None = address.removeprefix(CLIENT)
        else:
            found = canonicalize_bootstrap_address(address)
    except ConnectionError:
        raise BadInput(f"RAY_ADDRESS={address}: no Ray runs on this machine; {REMEDY}") from None
    except (ValueError, OSError):
        found = None
    host, _, port = (found or "").rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    name = host[1:-1] if bracketed else host
    # A colon is inside brackets, and brackets are around colons.
    well_formed = bool(name) and not set(name) & set("[]/") and (":" in name) == bracketed
    if not well_formed or not port.isdecimal() or len(port) > 5 or not 0 < int(port) < 65536:
        raise BadInput(f"RAY_ADDRESS={address!r} must be host:port, ray://host:port or auto")
    return name, int(port)


def _talks_as_ray(host: str, port: int) -> bool:
    """Whether gRPC comes up there. With TLS only Ray knows the certificates, and is left to try."""
    if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):
        return True
    import grpc

    # As Ray itself connects: past http_proxy, which leads away from this machine and its network.
    direct = [("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", options=direct) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=CONNECT_S)
        except grpc.FutureTimeoutError:
            return False
    return True
