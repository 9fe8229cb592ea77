# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""What the work on a service took: seconds per step, bytes, and what the process used. Cheap enough to be always on.

A step's ``seconds`` are those in which at least one thread was in it; steps run side by side, so they do not add up to the whole.
Its ``busy`` seconds are summed over threads, and those do add up: a thread is in one step at a time, the innermost.
"""

from __future__ import annotations

import resource
import threading
import time
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Iterable, Iterator, Mapping, TypeVar

#: fetch: bytes from the repository. decode: open, decompress, check them. write: give them to the disk or the store. replay: the store applies its
#: log or builds what it needs. verify: what was written is read back and compared.
STEPS = ("fetch", "decode", "write", "replay", "verify")
BYTES = ("fetched", "written", "reused")

T = TypeVar("T")


class _Span(AbstractContextManager["_Span"]):
    def __init__(self, meter: Meter, step: str) -> None:
        self._meter = meter
        self._step = step

    def __enter__(self) -> _Span:
        self._meter.enter(self._step)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._meter.leave()


class Meter:
    """Counts for one call; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._local = threading.local()
        self._active = dict.fromkeys(STEPS, 0)
        self._since = dict.fromkeys(STEPS, 0.0)
        self._wall = dict.fromkeys(STEPS, 0.0)
        self._busy = dict.fromkeys(STEPS, 0.0)
        self._bytes = dict.fromkeys(BYTES, 0)

    def during(self, step: str) -> _Span:
        """A context in which the thread is in a step, and in no outer one; "" for waiting, which is nobody's."""
        return _Span(self, step)

    def waiting(self, pieces: Iterable[T]) -> Iterator[T]:
        """The pieces; the time until each of them comes belongs to no step of the thread that asks."""
        source = iter(pieces)
        while True:
            with self.during(""):
                try:
                    piece = next(source)
                except StopIteration:
                    return
            yield piece

    def add(self, fetched: int = 0, written: int = 0, reused: int = 0) -> None:
        """Count bytes."""
        with self._lock:
            self._bytes["fetched"] += fetched
            self._bytes["written"] += written
            self._bytes["reused"] += reused

    def enter(self, step: str) -> None:
        now = time.perf_counter()
        stack: list[list[Any]] | None = getattr(self._local, "stack", None)
        if stack is None:
            stack = self._local.stack = []
        with self._lock:
            if stack:
                self._stop(stack[-1], now)
            stack.append([step, now])
            self._start(step, now)

    def leave(self) -> None:
        now = time.perf_counter()
        stack: list[list[Any]] = self._local.stack
        with self._lock:
            self._stop(stack.pop(), now)
            if stack:
                stack[-1][1] = now
                self._start(stack[-1][0], now)

    def _start(self, step: str, now: float) -> None:
        if step:
            if not self._active[step]:
                self._since[step] = now
            self._active[step] += 1

    def _stop(self, entry: list[Any], now: float) -> None:
        step, since = entry
        if step:
            self._busy[step] += now - since
            self._active[step] -= 1
            if not self._active[step]:
                self._wall[step] += now - self._since[step]

    def told(self) -> dict[str, Any]:
        """{"steps": {step: {"seconds", "busy"}}, "bytes": {"fetched", "written", "reused"}}; steps that nobody was in are left out."""
        with self._lock:
            steps = {
                step: {"seconds": round(self._wall[step], 3), "busy": round(self._busy[step], 3)} for step in STEPS if self._busy[step] or self._wall[step]
            }
            return {"steps": steps, "bytes": dict(self._bytes)}


def usage() -> dict[str, int | float]:
    """What this process and its ended children used so far.

    {"cpu_seconds", "peak_memory_bytes" (the largest single process), "read_bytes", "written_bytes" (block devices, as the kernel counts them)}.
    """
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    found: dict[str, int | float] = {
        "cpu_seconds": round(own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime, 3),
        "peak_memory_bytes": max(own.ru_maxrss, children.ru_maxrss) * 1024, "read_bytes": 0, "written_bytes": 0,
    }
    try:
        with open("/proc/self/io", encoding="ascii") as handle:
            counters = dict(line.split(": ") for line in handle.read().splitlines())
        found.update(read_bytes=int(counters["read_bytes"]), written_bytes=int(counters["write_bytes"]))
    except (OSError, ValueError, KeyError):
        pass  # a system that does not say
    return found


def combined_usage(usages: Iterable[Mapping[str, Any]]) -> dict[str, int | float]:
    """Several processes one after the other: sums, and the largest memory."""
    total: dict[str, int | float] = {"cpu_seconds": 0.0, "peak_memory_bytes": 0, "read_bytes": 0, "written_bytes": 0}
    for one in usages:
        for key in total:
            value = one.get(key)
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                total[key] = max(total[key], value) if key == "peak_memory_bytes" else total[key] + value
    total["cpu_seconds"] = round(total["cpu_seconds"], 3)
    return total


def combined(measured: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Several Meter.told() of calls one after the other, as one."""
    steps: dict[str, dict[str, float]] = {}
    moved = dict.fromkeys(BYTES, 0)
    for one in measured:
        for step in STEPS:
            found = (one.get("steps") or {}).get(step)
            if isinstance(found, Mapping):
                kept = steps.setdefault(step, {"seconds": 0.0, "busy": 0.0})
                for key in kept:
                    kept[key] = round(kept[key] + float(found.get(key) or 0.0), 3)
        for key in BYTES:
            moved[key] += int((one.get("bytes") or {}).get(key) or 0)
    return {"steps": {step: steps[step] for step in STEPS if step in steps}, "bytes": moved}
