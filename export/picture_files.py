"""Pictures that requests name: a regular file of a sane size below the requests' folder, or that request's error."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from export.failure import BadPrompt
from export.text import shown

MAX_IMAGE_BYTES = 64 * 2**20


def read_picture(folder: Path, name: str) -> bytes:
    """The bytes of the file `name` below `folder`, or of a link's that stays below it; raises BadPrompt with one sentence."""
    try:
        path = (folder / name).resolve(strict=True)
        if not path.is_relative_to(folder.resolve()):
            raise BadPrompt(f"image {shown(name)} is a link out of the folder of the requests")
        # No link can be put in its place from here on, and a FIFO is not waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise BadPrompt(f"image {shown(name)} is missing") from None
    except OSError as error:
        raise BadPrompt(f"image {shown(name)} cannot be read ({error.strerror})") from None
    except (ValueError, RuntimeError):
        # Names that no file can have; a loop of links.
        raise BadPrompt(f"image {shown(name)} cannot be read") from None
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise BadPrompt(f"image {shown(name)} is not a file")
        try:
            # Not by the size it says, which a file that grows does not keep.
            data = file.read(MAX_IMAGE_BYTES + 1)
        except OSError as error:
            raise BadPrompt(f"image {shown(name)} cannot be read ({error.strerror})") from None
    check_size(data)
    return data


def check_size(data: bytes) -> None:
    """Raise BadPrompt for more bytes than a picture may have."""
    if len(data) > MAX_IMAGE_BYTES:
        raise BadPrompt(f"image has more than {MAX_IMAGE_BYTES // 2**20} MiB")


def fingerprint(folder: Path, name: str) -> str:
    """Size and time of change of the file `name` below `folder`, "" where there is none; for telling that it changed."""
    try:
        found = (folder / name).stat()
    except (OSError, ValueError):
        return ""
    return f"{found.st_size} {found.st_mtime_ns}"
