# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wait until the services that this one depends on are ready, or fail and say who is to blame."""

from __future__ import annotations

import time
from typing import Any, Optional

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConfigError
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run import evidence, gates, standing, words
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run.actions import Leash, RunActionBase, run_directory
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run.directory import RunDirectory

_TOUCHED = {
    "untouched": "was not touched", "restarted": "was restarted, its data was not touched", "stopped": "was stopped, its data was not touched",
    "switching": "may have been switched: look with the status playbook", "switched": "has its restored data live",
    "back": "is back in its former data",
}


class ActionModule(RunActionBase):
    """One blocking action per host; nothing runs on the host itself."""

    _requires_connection = False

    def run(self, tmp: Any = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        del tmp
        _validated, args = self.validate_argument_spec(argument_spec={
            "run": {"type": "dict"},
            "run_dir": {"type": "path"},
            "service": {"type": "str", "required": True},
            "waits": {"type": "list", "elements": "str", "choices": list(gates.WAITS), "default": ["requirements"]},
            "services": {"type": "list", "elements": "raw"},
            "open_on": {"type": "list", "elements": "str", "default": list(words.USABLE)},
            "begins": {"type": "str"},
            "unless_untouched": {"type": "bool", "default": False},
            "timeout": {"type": "float", "default": 3600.0},
            "poll": {"type": "float", "default": 0.1},
        })
        result["changed"] = False
        return self.guarded(result, lambda: self._wait(args, task_vars or {}))

    def _wait(self, args: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        if self._task.check_mode:
            return {"opened": True, "waited": 0.0, "waited_for": [], "degraded_by": [], "not_picked": [], "msg": "check mode: nothing to wait for"}
        run = run_directory(args.get("run"), args.get("run_dir"))
        if run is None:
            raise ConfigError("the gate needs a run", f"gate of {args['service']}", "pass run or run_dir of lifeboat.recovery.run_state")
        service = str(args["service"])
        waits, given = args["waits"], args["services"]
        if given is not None and len(waits) > 1:
            raise ConfigError("services are for one wait", f"gate of {service} for {', '.join(waits)}", "leave services out, or use a gate for each")
        wanted = {wait: _wanted(standing.others(run, service, wait) if given is None else given) for wait in waits}
        if any(item["service"] == service for items in wanted.values() for item in items):
            raise ConfigError("a service cannot wait for itself", f"gate of {service}", "take it out of services")
        unknown = [word for word in args["open_on"] if word not in words.VERDICTS]
        if unknown:
            raise ConfigError("there is no such verdict", ", ".join(unknown), "use " + ", ".join(words.VERDICTS))
        own = run.state(service) or {}
        if own.get("verdict"):
            return {"failed": True, "msg": f"{service}: has verdict {own['verdict']} already: {own.get('message')}", "verdict": own["verdict"]}
        self.give_way(run, service)
        told: dict[str, Any] = {"opened": True, "waited": 0.0, "waited_for": [], "degraded_by": [], "not_picked": []}
        for number, wait in enumerate(waits):
            _add(told, self._until(run, service, wait, wanted[wait], args, task_vars))
            if not told["opened"]:
                return told
            if number == 0 and args["unless_untouched"]:
                told["because_of"] = standing.to_change(run, service)
                told["untouched"] = not told["because_of"]
                if told["untouched"]:
                    return told
            if wait == "dependants_stopped":
                told["outside"] = standing.outside(run, service)
        if args["begins"]:
            run.phase(service, args["begins"])
        return told

    def _until(
        self, run: RunDirectory, service: str, wait: str, wanted: list[dict[str, str]], args: dict[str, Any], task_vars: dict[str, Any],
    ) -> dict[str, Any]:
        phase = "island" if wait == "island_staged" else "gate"
        run.phase(service, phase)
        begin, shown = time.monotonic(), None
        since = {item["service"]: begin for item in wanted}
        waited: dict[str, float] = {}
        leash = Leash()
        pause = min(max(args["poll"], 0.02), 5.0)
        picked = set(run.picked())
        watch, pending = gates.Watch(run.file("state"), run.state, since), set(since) & picked
        while True:
            leash.check()
            states = watch.look(pending)
            decision = gates.decide(wait, wanted, states, tuple(args["open_on"]))
            now, pending = time.monotonic(), {item["service"] for item in decision.pending}
            for name in since:
                if name not in pending and name not in waited and name not in decision.not_picked:
                    waited[name] = now - since[name]
            if decision.open or decision.root is not None or now - begin >= args["timeout"]:
                break
            if shown != pending:
                shown = pending
                run.waiting(service, decision.pending)
            time.sleep(pause)
        for name in pending:
            waited[name] = time.monotonic() - begin
        told = sorted(({"service": name, "seconds": round(value, 3)} for name, value in waited.items() if value > pause / 2), key=lambda w: -w["seconds"])
        for item in told:
            run.mark(service, phase, "wait", on=item["service"], seconds=item["seconds"])
        common = {
            "waited": round(time.monotonic() - begin, 3), "waited_for": told, "degraded_by": decision.degraded_by, "not_picked": decision.not_picked,
        }
        if decision.open:
            if decision.degraded_by:
                run.degraded(service, decision.degraded_by)
            run.phase(service, phase, "end")
            return {"opened": True, **common}
        if decision.root is not None:
            return {"failed": True, "opened": False, **common, **self._blocked(run, service, decision)}
        return {"failed": True, "opened": False, **common, **self._late(run, service, sorted(pending), args, task_vars)}

    def _blocked(self, run: RunDirectory, service: str, decision: gates.Decision) -> dict[str, Any]:
        root = decision.root or {}
        why = f"{root['verdict']}" + (f" in phase {root['phase']}" if root.get("phase") else "")
        message = f"blocked by {root['service']} ({why})" + (f": {root['message']}" if root.get("message") else "")
        if decision.via and decision.via != root["service"]:
            message += f" [through {decision.via}]"
        remedy = root.get("remedy") or f"mend {root['service']}, then run the same command again: what is done is not done twice"
        run.verdict(service, "blocked", message, remedy, root)
        return {
            "verdict": "blocked", "root": root,
            "msg": words.one_line(f"{service}: {message}; {service} {self._touched(run, service)}; do: {remedy}", 900),
        }

    def _late(
        self, run: RunDirectory, service: str, pending: list[str], args: dict[str, Any], task_vars: dict[str, Any],
    ) -> dict[str, Any]:
        stands = ", ".join(f"{name} (phase {(run.state(name) or {}).get('phase', 'unknown')})" for name in pending)
        message = f"the gate did not open within {args['timeout']:g} s: still waiting for {stands}"
        remedy = f"see why {pending[0]} takes so long; the time is lifeboat_gate_timeout"
        forks = task_vars.get("ansible_forks")
        if isinstance(forks, int) and forks < len(run.picked()):
            remedy += f"; {forks} forks serve {len(run.picked())} services, so one may wait for another that has not begun: raise forks"
        run.verdict(service, "failed", message, remedy, failure="timeout")
        return {
            "verdict": "failed", "root": {"service": service, "verdict": "failed", "message": message},
            "msg": words.one_line(f"{service}: {message}; {service} {self._touched(run, service)}; do: {remedy}", 900),
        }

    @staticmethod
    def _touched(run: RunDirectory, service: str) -> str:
        began = {str(mark.get("phase")) for mark in run.timings() if mark.get("service") == service and mark.get("event") == "start"}
        return _TOUCHED[evidence.touched(run.state(service) or {}, run.kept(service), run.collected(service), began, str(run.run.get("id")))]


def _add(told: dict[str, Any], found: dict[str, Any]) -> None:
    """What one more wait found, to what those before it did."""
    waited = round(told["waited"] + found["waited"], 3)
    longest = sorted(told["waited_for"] + found["waited_for"], key=lambda item: -float(item["seconds"]))
    names = {key: told[key] + [name for name in found[key] if name not in told[key]] for key in ("degraded_by", "not_picked")}
    told.update(found, waited=waited, waited_for=longest, **names)


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
