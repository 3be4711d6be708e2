"""Which ports the processes of a command listen on, looked at while it runs: python -m tests.listeners COMMAND..."""

from __future__ import annotations

import ipaddress
import subprocess
import sys
import threading
from collections import Counter
from types import TracebackType
from typing import Any, NamedTuple, Self

import psutil

EVERY_S = 0.2


class Listener(NamedTuple):
    """address: where it listens, 0.0.0.0 and :: being everywhere. program: what a process list shows of its owner."""

    address: str
    program: str

    @property
    def is_loopback(self) -> bool:
        found = ipaddress.ip_address(self.address)
        mapped = getattr(found, "ipv4_mapped", None)
        return (mapped or found).is_loopback


class Watch:
    """Collects the TCP listeners of a process and its descendants, those of this process without one."""

    def __init__(self, process: psutil.Process | None = None) -> None:
        self.process = process or psutil.Process()
        self.seen, self.most_open, self.looks = Counter[Listener](), 0, 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    def open_to_others(self) -> list[Listener]:
        """Those seen that are not on loopback."""
        return sorted(listener for listener in self.seen if not listener.is_loopback)

    def _follow(self) -> None:
        while not self._ended.wait(EVERY_S):
            found = list(self._look())
            self.looks += 1
            self.most_open = max(self.most_open, len(found))
            self.seen.update(found)

    def _look(self) -> list[Listener]:
        try:
            family = {process.pid: process for process in (self.process, *self.process.children(recursive=True))}
        except psutil.NoSuchProcess:
            return []
        open_now = [entry for entry in psutil.net_connections("tcp") if entry.status == psutil.CONN_LISTEN]
        found: Any = [entry for entry in open_now if entry.pid in family]
        return [Listener(entry.laddr.ip, _name(family[entry.pid])) for entry in found]


def _name(process: psutil.Process) -> str:
    try:
        words = process.cmdline()
    except psutil.Error:
        words = []
    return " ".join(word.rpartition("/")[2] for word in words[:3]).strip()[:60] or f"process {process.pid}"


def main() -> int:
    with subprocess.Popen(sys.argv[1:]) as process, Watch(psutil.Process(process.pid)) as watch:
        code = process.wait()
    print(f"listeners: {watch.looks} looks, at most {watch.most_open} open at once, exit code {code}")
    for listener, times in sorted(watch.seen.items()):
        print(f"  {'loopback' if listener.is_loopback else 'OPEN    '} {listener.address:20} {times:5} x {listener.program}")
    return code or bool(watch.open_to_others())


if __name__ == "__main__":
    sys.exit(main())
