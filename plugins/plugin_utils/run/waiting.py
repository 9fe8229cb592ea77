# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Waiting at a gate: until it opens, until it never can, or until the time is over. A service that does not get through has its verdict then."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Callable, Optional

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.lifeboat.recovery.plugins.module_utils import arguments
from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConfigError
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run import evidence, gates, standing, words
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run.directory import RunDirectory

_TOUCHED = {
    "untouched": "was not touched", "restarted": "was restarted, its data was not touched", "stopped": "was stopped, its data was not touched",
    "switching": "may have been switched: look with the status playbook", "switched": "has its restored data live",
    "back": "is back in its former data",
}


@dataclass(frozen=True)
class Gate:
    """What has to be true of whom, and how patiently it is asked. ``services`` None: those that the run's plan tells of."""

    waits: str = "requirements"
    services: Optional[list[Any]] = None
    open_on: tuple[str, ...] = words.USABLE
    timeout: float = 3600.0
    poll: float = 0.1

    @property
    def phase(self) -> str:
        return "island" if self.waits == "island_staged" else "gate"


def of_call(given: Any, where: str) -> Gate:
    """The gate that the option ``gate`` of a call names: {waits, timeout}; ConfigError for anything else."""
    told = ArgumentSpecValidator({"gate": arguments.GATE}).validate({"gate": given})
    if told.error_messages:
        why = words.one_line(told.error_messages[0], 200)
        raise ConfigError(f"a call cannot wait for {words.one_line(given, 80)} ({why})", where, f"give waits, one of {', '.join(arguments.WAITS)}, and timeout")
    return Gate(**told.validated_parameters["gate"])


def until_open(run: RunDirectory, service: str, gate: Gate, alive: Callable[[], None], forks: Any = None) -> dict[str, Any]:
    """{"opened", "waited" (seconds), "waited_for": [{"service", "seconds"}], "degraded_by", "not_picked"}, and ``failed`` with "msg", "verdict" and "root"
    where it is not open. ``alive`` is called before each look and ends the wait by what it raises. forks: of the playbook, for the remedy."""
    wanted = _wanted(standing.others(run, service, gate.waits) if gate.services is None else gate.services)
    if any(item["service"] == service for item in wanted):
        raise ConfigError("a service cannot wait for itself", f"gate of {service}", "take it out of services")
    unknown = [word for word in gate.open_on if word not in words.VERDICTS]
    if unknown:
        raise ConfigError("there is no such verdict", ", ".join(unknown), "use " + ", ".join(words.VERDICTS))
    own = run.state(service) or {}
    if own.get("verdict"):
        return {"failed": True, "msg": f"{service}: has verdict {own['verdict']} already: {own.get('message')}", "verdict": own["verdict"]}
    run.phase(service, gate.phase)
    begin, shown = time.monotonic(), None
    since = {item["service"]: begin for item in wanted}
    waited: dict[str, float] = {}
    pause = min(max(gate.poll, 0.02), 5.0)
    watch, pending = gates.Watch(run.file("state"), run.state, since), set(since) & set(run.picked())
    while True:
        alive()
        decision = gates.decide(gate.waits, wanted, watch.look(pending), gate.open_on)
        now, pending = time.monotonic(), {item["service"] for item in decision.pending}
        for name in since:
            if name not in pending and name not in waited and name not in decision.not_picked:
                waited[name] = now - since[name]
        if decision.open or decision.root is not None or now - begin >= gate.timeout:
            break
        if shown != pending:
            shown = pending
            run.waiting(service, decision.pending)
        time.sleep(pause)
    for name in pending:
        waited[name] = time.monotonic() - begin
    longest = sorted(((round(value, 3), name) for name, value in waited.items() if value > pause / 2), reverse=True)
    for seconds, name in longest:
        run.mark(service, gate.phase, "wait", on=name, seconds=seconds)
    common = {
        "opened": decision.open, "waited": round(time.monotonic() - begin, 3), "degraded_by": decision.degraded_by, "not_picked": decision.not_picked,
        "waited_for": [{"service": name, "seconds": seconds} for seconds, name in longest],
    }
    if decision.open:
        if decision.degraded_by:
            run.degraded(service, decision.degraded_by)
        run.phase(service, gate.phase, "end")
        return common
    if decision.root is not None:
        return {"failed": True, **common, **_blocked(run, service, decision)}
    return {"failed": True, **common, **_late(run, service, sorted(pending), gate, forks)}


def _blocked(run: RunDirectory, service: str, decision: gates.Decision) -> dict[str, Any]:
    root = decision.root or {}
    why = f"{root['verdict']}" + (f" in phase {root['phase']}" if root.get("phase") else "")
    message = f"blocked by {root['service']} ({why})" + (f": {root['message']}" if root.get("message") else "")
    if decision.via and decision.via != root["service"]:
        message += f" [through {decision.via}]"
    remedy = root.get("remedy") or f"mend {root['service']}, then run the same command again: what is done is not done twice"
    run.verdict(service, "blocked", message, remedy, root)
    return {"verdict": "blocked", "root": root, "msg": _told(run, service, message, remedy)}


def _late(run: RunDirectory, service: str, pending: list[str], gate: Gate, forks: Any) -> dict[str, Any]:
    stands = ", ".join(f"{name} (phase {(run.state(name) or {}).get('phase', 'unknown')})" for name in pending)
    message = f"the gate did not open within {gate.timeout:g} s: still waiting for {stands}"
    remedy = f"see why {pending[0]} takes so long; the time is lifeboat_gate_timeout"
    if isinstance(forks, int) and forks < len(run.picked()):
        remedy += f"; {forks} forks serve {len(run.picked())} services, so one may wait for another that has not begun: raise forks"
    run.verdict(service, "failed", message, remedy, failure="timeout")
    return {
        "verdict": "failed", "root": {"service": service, "verdict": "failed", "message": message}, "msg": _told(run, service, message, remedy),
    }


def _told(run: RunDirectory, service: str, message: str, remedy: str) -> str:
    """One line, which also says what of the service was touched."""
    began = {str(mark.get("phase")) for mark in run.timings() if mark.get("service") == service and mark.get("event") == "start"}
    touched = evidence.touched(run.state(service) or {}, run.kept(service), run.collected(service), began, str(run.run.get("id")))
    return words.one_line(f"{service}: {message}; {service} {_TOUCHED[touched]}; do: {remedy}", 900)


def _wanted(given: list[Any]) -> list[dict[str, str]]:
    """[{service, kind}] of names or mappings; ConfigError for anything else."""
    found = []
    for item in given:
        if isinstance(item, str):
            found.append({"service": item, "kind": "hard"})
        elif isinstance(item, dict) and isinstance(item.get("service"), str) and item.get("kind", "hard") in ("hard", "soft"):
            found.append({"service": item["service"], "kind": str(item.get("kind") or "hard")})
        else:
            raise ConfigError(
                "a service to wait for must be a name, or a mapping with service and kind (hard or soft)", words.one_line(item, 80),
                "see ansible-doc lifeboat.recovery.gate",
            )
    return found
