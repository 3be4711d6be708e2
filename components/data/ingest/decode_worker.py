"""A decoding process: `python -m components.data.ingest.decode_worker`, fed and read through pipes by decode_pool.

It imports Pillow and numpy alone, so that it starts in a fraction of a second, and sends bytes and JSON, so that what has
gone wrong in it cannot reach its parent. Every message is its length in 8 bytes and then its bytes. It gets the settings;
then batches, each the number of its pictures and the pictures. It sends an empty message when ready; then for each picture
a JSON object with "reason", or with "notes" and one more message, the PNG.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import deque
from typing import IO, NamedTuple

from components.data.content_config import ImagesConfig
from core.images import ImageError, PreparedImage, prepare_image

# No message is longer: a process that announces one has gone astray.
MAX_MESSAGE_BYTES = 2**31


class DecodeFailure(NamedTuple):
    """An image that cannot be used."""

    reason: str
    """Why this image cannot be used, in the words of ImageError or decode_pool."""


Decoded = PreparedImage | DecodeFailure


def decode(data: bytes, side_px: int, rules: ImagesConfig) -> Decoded:
    """`prepare_image`, its error as a value."""
    try:
        return prepare_image(data, side_px, rules)
    except ImageError as error:
        return DecodeFailure(str(error))


def write_messages(pipe: IO[bytes], *messages: bytes) -> None:
    """Each as its length in 8 bytes and its bytes."""
    for message in messages:
        pipe.write(len(message).to_bytes(8, "little"))
        pipe.write(message)
    pipe.flush()


def read_message(pipe: IO[bytes]) -> bytes:
    """One message; BrokenPipeError at the end of the pipe."""
    size = int.from_bytes(pipe.read(8).ljust(8, b"\xff"), "little")
    message = pipe.read(size) if size < MAX_MESSAGE_BYTES else b""
    if len(message) != size:
        raise BrokenPipeError("the pipe has ended")
    return message


def _serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """What a decoding process does until its parent closes the pipe, or is gone."""
    settings = json.loads(read_message(requests))
    rules = ImagesConfig(**settings["rules"] | {"formats": tuple(settings["rules"]["formats"])})
    _limit_memory(rules.decoder_memory_mib)
    write_messages(answers, b"")
    while True:
        # The whole batch before any answer: the parent reads none until it has sent all.
        images = deque(read_message(requests) for _ in range(int.from_bytes(read_message(requests), "little")))
        while images:
            result = decode(images.popleft(), settings["side_px"], rules)
            if isinstance(result, PreparedImage):
                write_messages(answers, json.dumps({"notes": result.notes}).encode(), result.png)
            else:
                write_messages(answers, json.dumps({"reason": result.reason}).encode())


def _limit_memory(mib: int) -> None:
    """Allocations beyond fail with a MemoryError. Linux alone counts private memory so; elsewhere nothing is limited."""
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (mib * 2**20, mib * 2**20))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _main() -> None:
    # The terminal's interrupt goes to the whole group; the parent decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb")
    # What a library prints must not get between the answers.
    os.dup2(2, 1)
    try:
        _serve(sys.stdin.buffer, answers)
    except BrokenPipeError:
        os._exit(0)


if __name__ == "__main__":
    _main()
