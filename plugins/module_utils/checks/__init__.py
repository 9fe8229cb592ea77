# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Is the service well? Its data stores, status, health, schema version and invariants, each with its time and, when it fails, why.

run() is the one entry point. A probe is one mapping of the catalog; its kind is the key that names it
(http, tcp, sql, command, redis), and PROBES says which module performs it: ``probe(spec, entry, timeout) -> value``.
A probe raises CheckError when it cannot be performed or its own expectation is not met; expectations on the value
(equals, at_least, at_most) are judged here.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Callable

from .. import policy
from ..errors import ConfigError, LifeboatError
from . import expect

if TYPE_CHECKING:
    from ..spec import Spec

PHASES = ("status", "health", "invariants", "all")

_Probe = Callable[["Spec", "dict[str, Any]", float], Any]


def _http() -> _Probe:
    from . import http

    return http.probe


def _tcp() -> _Probe:
    from . import tcp

    return tcp.probe


def _sql() -> _Probe:
    from . import sql

    return sql.probe


def _command() -> _Probe:
    from . import command

    return command.probe


def _redis() -> _Probe:
    from . import redis_command

    return redis_command.probe


#: kind -> how to get its probe. The imports are written out because Ansible finds what to ship by reading them.
PROBES: dict[str, Callable[[], _Probe]] = {"http": _http, "tcp": _tcp, "sql": _sql, "command": _command, "redis": _redis}

#: Seconds one probe may take when it does not say itself.
TIMEOUT = 5.0
_WIDTH = 4


def run(
    spec: Spec, phase: str = "all", wait: float = 0.0, sleep: Callable[[float], None] = time.sleep, warm: bool = False,
) -> dict[str, Any]:
    """Perform the checks of a phase.

    wait: seconds to go on trying data stores, status and health until they pass. Then the schema version is looked at, with ``warm`` the
    service's warm-up requests are made and its health is asked again, and the invariants are judged; none of these when one before failed.
    Returns {"ok", "results": [{"kind", "name", "ok", "detail", "seconds"}], "declared": {"status", "health", "invariants"}: counts,
    "waited": seconds until the invariants, "judged": seconds of the invariants, "warnings"}. ``kind`` is ready (a data store
    answers and takes the login), status, health, schema, prewarm or invariant.
    """
    if phase not in PHASES:
        raise ConfigError(f"unknown phase {phase!r}", f"checks of {spec.service}", f"use one of: {', '.join(PHASES)}")
    status = _status(spec)
    health = [("health", name_of(probe), probe) for probe in spec.entry.get("health") or []]
    invariants = [("invariant", str(probe.get("name") or name_of(probe)), probe) for probe in spec.entry.get("invariants") or []]
    begin = time.monotonic()
    results: list[dict[str, Any]] = []
    warnings: list[str] = []
    ready = _stores(spec, health) if phase in ("health", "all") else []
    first = ready + (status if phase in ("status", "all") else []) + (health if phase in ("health", "all") else [])
    if first:
        results += _until(spec, first, wait, sleep)
    if phase in ("health", "all") and spec.entry.get("schema") and _passed(results):
        from . import schema

        results += schema.ask(spec)
    if warm and (spec.entry.get("prewarm") or {}).get("http") and _passed(results):
        from . import warm as requests

        made, warnings = requests.perform(spec)
        results = [result for result in results if result["kind"] not in ("status", "health")] + made
        results += _round(spec, [check for check in first if check[0] in ("status", "health")])
    waited = time.monotonic() - begin
    begin = time.monotonic()
    if phase in ("invariants", "all") and invariants and _passed(results):
        results += _judged(spec, invariants, sleep)
    for result in results:
        result.pop("transient", None)
    return {
        "ok": _passed(results), "results": results, "warnings": warnings, "waited": round(waited, 3), "judged": round(time.monotonic() - begin, 3),
        "declared": {"status": len(status), "health": len(health), "invariants": len(invariants)},
    }


_Check = tuple[str, str, dict[str, Any]]


def _passed(results: list[dict[str, Any]]) -> bool:
    return all(result["ok"] for result in results)


def _stores(spec: Spec, health: list[_Check]) -> list[_Check]:
    """Each of the service's databases answers and takes its login, also where the service declares no probe that would show it."""
    asked = {str(probe.get("source")) for _kind_of_check, _what, probe in health if "sql" in probe}
    found: list[_Check] = []
    for name, source in (spec.entry.get("sources") or {}).items():
        kind = str(source.get("type"))
        if name not in asked and kind in _GREETINGS:
            found.append(("ready", f"{name} answers", {**_GREETINGS[kind], "source": name}))
    return found


#: Source type -> what any server of it answers to whoever may log in.
_GREETINGS: dict[str, dict[str, Any]] = {
    "postgresql": {"sql": "select 1"}, "postgresql_database": {"sql": "select 1"}, "redis": {"redis": ["PING"]},
}


def _status(spec: Spec) -> list[_Check]:
    status = (spec.entry.get("runtime") or {}).get("status")
    if isinstance(status, list) and status:
        return [("status", "runtime status", {"command": status})]
    if isinstance(status, dict) and status.get("unit"):
        return [("status", f"unit {status['unit']}", {"command": ["systemctl", "is-active", "--quiet", str(status["unit"])]})]
    return []  # a task file is the playbook's to run


def is_down(spec: Spec) -> bool:
    """Whether the status command ran and said no. False when there is none, or when it could not be asked: then nobody knows."""
    from .command import run_argv

    for _kind_of_check, _what, probe in _status(spec):
        try:
            return run_argv([str(word) for word in probe["command"]], TIMEOUT)[0] != 0
        except LifeboatError:
            return False
    return False


def name_of(probe: dict[str, Any]) -> str:
    """A check's kind and what it asks, without secrets."""
    kind = kind_of(probe)
    value = probe[kind]
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return f"{kind} {expect.without_secrets(text)}"[:120]


def kind_of(probe: dict[str, Any]) -> str:
    """The one kind of a check; ConfigError when it has none or several."""
    kinds = [kind for kind in PROBES if kind in probe]
    if len(kinds) != 1:
        raise ConfigError("a check needs exactly one kind", f"{sorted(probe)}", f"use one of: {', '.join(PROBES)}")
    return kinds[0]


def _until(spec: Spec, checks: list[_Check], wait: float, sleep: Callable[[float], None]) -> list[dict[str, Any]]:
    """Rounds until every check passes in one and the same round, or the time is over; the last round is told."""
    deadline = time.monotonic() + max(0.0, wait)
    pause = 0.1
    while True:
        results = _round(spec, checks)
        left = deadline - time.monotonic()
        if all(result["ok"] for result in results) or left <= 0:
            for result in results:
                if not result["ok"] and wait:
                    result["detail"] += f" (for {wait:g} s)"
            return results
        sleep(min(pause, left))
        pause = min(0.5, pause * 1.5)


def _judged(spec: Spec, invariants: list[_Check], sleep: Callable[[float], None]) -> list[dict[str, Any]]:
    """The invariants; those whose store did not answer are asked again as the policy says. A broken one is broken."""
    step = policy.of(spec.entry, "invariants")
    results, tries = _round(spec, invariants), 1
    while tries <= step.retries and not _passed(results) and all(result["ok"] or result.get("transient") for result in results):
        sleep(step.pause(tries))
        tries += 1
        again = [number for number, result in enumerate(results) if not result["ok"]]
        for number, result in zip(again, _round(spec, [invariants[number] for number in again])):
            results[number] = result
    return results


def _round(spec: Spec, checks: list[_Check]) -> list[dict[str, Any]]:
    if not checks:
        return []
    with ThreadPoolExecutor(min(_WIDTH, len(checks)), thread_name_prefix="check") as threads:
        return list(threads.map(lambda check: perform(spec, *check), checks))


def perform(spec: Spec, kind: str, name: str, probe: dict[str, Any]) -> dict[str, Any]:
    """One check, asked once: {"kind", "name", "ok", "detail", "seconds"}."""
    begin = time.monotonic()
    transient = False
    try:
        which = kind_of(probe)
        timeout = expect.seconds(probe.get("timeout")) or (policy.of(spec.entry, "invariants").timeout if kind == "invariant" else TIMEOUT)
        value = PROBES[which]()(spec, probe, timeout)
        detail = expect.judge(value, probe)
        ok = True
    except LifeboatError as error:
        ok, detail, transient = False, str(error), error.transient
    except (OSError, ValueError, TypeError) as error:
        ok, detail = False, f"{type(error).__name__}: {expect.without_secrets(str(error))}"
    return {"kind": kind, "name": name, "ok": ok, "detail": detail, "seconds": round(time.monotonic() - begin, 3), "transient": transient}
