# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""What clients of a service see while something else is restored: its http and tcp health probes, asked at a low rate by a process of its own.

The process ends when it is told to, after ``limit`` seconds, and when the controller that wanted it was one of this machine and is gone. In the
service's state directory: probe.json ({"run", "pid", "pid_started", "boot"}) and probe-result.json (what it saw, written every few seconds).
"""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import time
from typing import TYPE_CHECKING, Any, Callable

from .. import checks, durable, lease, state
from ..errors import ConfigError, LifeboatError, SourceError
from ..recoveries import quantile

if TYPE_CHECKING:
    from ..spec import Spec

_RECORD, _RESULT = "probe.json", "probe-result.json"
#: Kinds of health probes that a client of the service could make too.
_KINDS = ("http", "tcp")
#: Seconds between two probes at least, one probe may take at most, between two written results, and for the process to end.
_LEAST, _LONGEST, _WRITTEN, _ENDING = 0.2, 5.0, 5.0, 10.0
#: Latencies that are kept; more are counted and not kept.
_KEPT = 100_000


def probes(spec: Spec) -> list[tuple[str, dict[str, Any]]]:
    """(name, probe) of what is asked."""
    return [
        (checks.name_of(probe), {**probe, "timeout": min(_LONGEST, checks.expect.seconds(probe.get("timeout")) or _LONGEST)})
        for probe in spec.entry.get("health") or [] if checks.kind_of(probe) in _KINDS
    ]


def start(spec: Spec, run: dict[str, Any], interval: float, limit: float) -> dict[str, Any]:
    """Begin to watch; {"changed", "watching": number of probes}. One that watches already is replaced. Nothing for a service without such probes."""
    if interval < _LEAST or limit <= 0:
        raise ConfigError(f"not a rate for probes ({interval:g} s, for {limit:g} s)", spec.service, f"at least {_LEAST:g} s between two, for more than 0 s")
    asked = probes(spec)
    if not asked:
        return {"changed": False, "watching": 0}
    stop(spec)
    state.ensure_private(spec.service_dir)
    for _name, probe in asked:
        checks.PROBES[checks.kind_of(probe)]()  # what a module came from is gone when the process needs it
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _detach(spec, run, asked, interval, limit, writing)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as told:
        if told.read() != b"ok":
            raise SourceError("the probing of clients could not be begun", spec.service, "see the disk and the limits of the host")
    return {"changed": True, "watching": len(asked)}


def stop(spec: Spec) -> dict[str, Any]:
    """End the watching and say what was seen: {"changed", "clients": {"probes", "errors", "p50", "p95", "max", "seconds"} in seconds, or None}."""
    record = state.read_json(spec.path(_RECORD))
    if record is None:
        return {"changed": False, "clients": None}
    pid = int(record.get("pid") or 0)
    deadline = time.monotonic() + _ENDING
    while _lives(record) and time.monotonic() < deadline:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        time.sleep(0.02)
    if _lives(record):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    found = state.read_json(spec.path(_RESULT))
    for name in (_RECORD, _RESULT):
        with contextlib.suppress(FileNotFoundError):
            durable.unlink(spec.path(name), "lease")
    return {"changed": True, "clients": found}


def _lives(record: dict[str, Any]) -> bool:
    pid = int(record.get("pid") or 0)
    return pid > 1 and record.get("boot") == lease.boot_id() and lease.process_started(pid) == record.get("pid_started") != ""


def _detach(spec: Spec, run: dict[str, Any], asked: list[tuple[str, dict[str, Any]]], interval: float, limit: float, told: int) -> None:
    """In the forked process: fork again, so that nobody waits for it, and never return."""
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        os.closerange(3, told)
        os.closerange(told + 1, 4096)
        os.chdir("/")
        pid = os.getpid()
        state.write_json(spec.path(_RECORD), {"run": run["id"], "pid": pid, "pid_started": lease.process_started(pid), "boot": lease.boot_id()}, "lease")
        ended = [False]

        def end(_number: int, _frame: Any) -> None:
            ended[0] = True

        signal.signal(signal.SIGTERM, end)
        os.write(told, b"ok")
        os.close(told)
        Watch(lambda name, probe: checks.perform(spec, "health", name, probe), asked, interval).run(
            limit, lambda: ended[0] or _orphan(run), lambda seen: state.write_json(spec.path(_RESULT), seen, "lease"))
    except (LifeboatError, OSError):
        os._exit(1)  # nobody is there to hear it; stop() says that nothing is known
    finally:
        os._exit(0)


def _orphan(run: dict[str, Any]) -> bool:
    """The controller is a process of this machine that is gone."""
    pid = int(run.get("pid") or 0)
    if not pid or run.get("controller") != platform.node() or run.get("boot") not in ("", None, lease.boot_id()):
        return False
    started = lease.process_started(pid)
    return not started or run.get("pid_started") not in ("", None, started)


class Watch:
    """Asks one probe after the other, ``interval`` seconds apart, and keeps the latencies of the answers."""

    def __init__(self, ask: Callable[[str, dict[str, Any]], dict[str, Any]], asked: list[tuple[str, dict[str, Any]]], interval: float) -> None:
        self._ask = ask
        self._asked = asked
        self._interval = interval
        self._times: list[float] = []
        self._count = self._errors = 0
        self._began = time.monotonic()

    def once(self) -> None:
        """One probe. A refusal counts as an error with its latency; a client had to wait for it too."""
        name, probe = self._asked[self._count % len(self._asked)]
        found = self._ask(name, probe)
        self._count += 1
        self._errors += 0 if found["ok"] else 1
        if len(self._times) < _KEPT:
            self._times.append(float(found["seconds"]))

    def seen(self) -> dict[str, Any]:
        """{"probes", "errors", "p50", "p95", "max", "seconds"}."""
        times = self._times
        return {
            "probes": self._count, "errors": self._errors, "p50": round(quantile(times, 0.5), 4) if times else None,
            "p95": round(quantile(times, 0.95), 4) if times else None, "max": round(max(times), 4) if times else None,
            "seconds": round(time.monotonic() - self._began, 3),
        }

    def run(self, limit: float, over: Callable[[], bool], write: Callable[[dict[str, Any]], None]) -> None:
        """Until it is over or the limit is reached; what was seen is written every few seconds and at the end."""
        written = 0.0
        while not over() and time.monotonic() - self._began < limit:
            following = time.monotonic() + self._interval
            self.once()
            if time.monotonic() - written >= _WRITTEN:
                written = time.monotonic()
                write(self.seen())
            while not over() and (left := min(following, self._began + limit) - time.monotonic()) > 0:
                time.sleep(min(left, 0.2))
        write(self.seen())
