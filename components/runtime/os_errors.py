"""What the operating system's errors mean to a user: one sentence for each error number, with the path it struck."""

from __future__ import annotations

import errno
import os
import socket

# What is wrong, and what to do about it.
REASONS = {
    errno.ENOSPC: "the disk is full; make room and run again",
    errno.EDQUOT: "the disk quota is used up; make room and run again",
    errno.EFBIG: "the file grew beyond what this system allows (ulimit -f); raise the limit and run again",
    errno.EROFS: "the file system is read-only; work in a folder that can be written to",
    errno.EACCES: "permission denied; give this user the right to it, or work in a folder of its own",
    errno.EPERM: "the system does not permit it; give this user the right to it, or work in a folder of its own",
    errno.ENOENT: "there is no such file or folder; check the path",
    errno.ENOTDIR: "a part of this path is a file where a folder must be; move the file away",
    errno.EEXIST: "this stands in the way of a folder or file to be made; move it away",
    errno.EISDIR: "this is a folder where a file must be; move it away",
    errno.ENOTEMPTY: "another program writes into this folder; wait for it or stop it",
    errno.EBUSY: "it is in use by another program or is a mount point; free it and run again",
    errno.ELOOP: "its links lead in a circle; mend them",
    errno.ENAMETOOLONG: "the path is too long for this system; work in a folder with a shorter one",
    errno.EMFILE: "too many open files; raise the limit (ulimit -n) and run again",
    errno.ENFILE: "this machine has too many open files; stop other programs and run again",
    errno.EAGAIN: "the system is out of processes or threads (ulimit -u); raise the limit and run again",
    errno.ENOMEM: "memory ran out; make the batch or the model smaller, or stop other programs",
    errno.EIO: "the disk fails to read or write; check it (dmesg) and run again",
    errno.ESTALE: "the network file system lost it; mount it anew and run again",
    errno.ENOLCK: "the file system has no locks to give; work on a local disk",
    errno.EXDEV: "it lies on another file system than what it is moved to; keep both on one",
    errno.EPIPE: "the program that read this output has ended; run again without it",
}
# Of these the number alone says enough.
WITHOUT_PLACE = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM),
    *(errno.EIO, errno.ESTALE, errno.ENOLCK, errno.EPIPE),
)
CONNECTION = {
    errno.ECONNREFUSED: "nothing listens there",
    errno.ECONNRESET: "the other side broke off",
    errno.ECONNABORTED: "the other side broke off",
    errno.ETIMEDOUT: "no answer came",
    errno.EHOSTUNREACH: "the machine cannot be reached",
    errno.ENETUNREACH: "the network cannot be reached",
    errno.EADDRINUSE: "another program has the port",
    errno.EADDRNOTAVAIL: "this machine has no such address",
}


# Libraries raise these with a text alone; the text is most often the path.
BY_CLASS = {
    FileNotFoundError: errno.ENOENT,
    PermissionError: errno.EACCES,
    NotADirectoryError: errno.ENOTDIR,
    IsADirectoryError: errno.EISDIR,
    FileExistsError: errno.EEXIST,
}


def sentence_of_path(error: BaseException) -> str | None:
    """What befell a file or a folder; None for other kinds: many libraries make their own errors an OSError."""
    if not isinstance(error, OSError) or isinstance(error, socket.gaierror):
        return None
    if error.errno is None:
        number = next((number for kind, number in BY_CLASS.items() if isinstance(error, kind)), None)
        return sentence_of_errno(number, str(error)) if number and str(error) else None
    if "temporary directory" in str(error.strerror):  # Python has tried several
        return f"{error.strerror}: none of them can be written to; make room in one, or name another in TMPDIR"
    places = [os.fsdecode(place) for place in (error.filename, error.filename2) if isinstance(place, (str, bytes, os.PathLike))]
    return sentence_of_errno(error.errno, " -> ".join(places))


def sentence_of_errno(number: int, place: str = "") -> str | None:
    """place: the path, where it is known; a missing file whose name nobody knows is no sentence."""
    if number in CONNECTION or (not place and number not in WITHOUT_PLACE):
        return None
    reason = REASONS.get(number) or f"{os.strerror(number)}; check the path and run again"
    return f"{place}: {reason}" if place else reason


def sentence_of_connection(error: BaseException) -> str | None:
    """What befell a connection; None for other kinds."""
    if isinstance(error, socket.gaierror):
        reason = f"the name of a machine cannot be found: {error.strerror}"
    elif isinstance(error, OSError) and error.errno in CONNECTION:
        reason = CONNECTION[error.errno]
    elif isinstance(error, (ConnectionError, TimeoutError)):
        reason = str(error).strip().split("\n")[0] or "no answer came"
    else:
        return None
    return f"no connection ({reason}); check the address and the network, and that the server runs"
