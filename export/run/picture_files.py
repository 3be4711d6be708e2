"""Pictures that requests name: a regular file of a sane size below the requests' folder, or that request's error."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from core.errors import BadPrompt
from core.fingerprint import local_entries
from core.text import shown

MAX_IMAGE_BYTES = 64 * 2**20


def read_picture(folder: Path, name: str) -> bytes:
    """The bytes of the file `name` below `folder`, or of a link's that stays below it; raises BadPrompt with one sentence."""
    try:
        path, home = (folder / name).resolve(strict=True), folder.resolve()
        data = _read(path) if path.is_relative_to(home) else None
    except FileNotFoundError:
        raise BadPrompt(f"image {shown(name)} is missing") from None
    except IsADirectoryError:
        raise BadPrompt(f"image {shown(name)} is not a file") from None
    except (OSError, ValueError, RuntimeError) as error:
        # ValueError: a name that no file can have; RuntimeError: a loop of links.
        why = f" ({error.strerror})" if isinstance(error, OSError) else ""
        raise BadPrompt(f"image {shown(name)} cannot be read{why}") from None
    if data is None:
        raise BadPrompt(f"image {shown(name)} is a link out of the folder of the requests")
    check_size(data)
    return data


def _read(path: Path) -> bytes:
    """MAX_IMAGE_BYTES of a file and one more at most; raises OSError."""
    # No link can be put in its place from here on, and a FIFO is not waited for.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            # A folder, and as little to be read: a FIFO, a socket, a device.
            raise IsADirectoryError
        # Not by the size it says, which a file that grows does not keep.
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(MAX_IMAGE_BYTES + 1)
    finally:
        os.close(descriptor)


def check_size(data: bytes | bytearray | memoryview) -> None:
    """Raise BadPrompt for more bytes than a picture may have."""
    if len(data) > MAX_IMAGE_BYTES:
        raise BadPrompt(f"image has more than {MAX_IMAGE_BYTES // 2**20} MiB")


def fingerprint(folder: Path, name: str) -> str:
    """What tells that the file `name` below `folder` changed; "" for no name, and where there is no such file."""
    for found in local_entries([str(folder / name)] if name else []):
        if found.size is not None:
            return f"{found.size} {found.version}".strip()
    return ""
