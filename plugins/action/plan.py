# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decide what a run is about and whether it may begin; controller only, changes nothing of the ecosystem."""

from __future__ import annotations

import os
from typing import Any, Callable, Mapping, Optional

from ansible.release import __version__ as ansible_version
from ansible.utils.display import Display
from ansible.utils.vars import load_extra_vars

from ansible_collections.lifeboat.recovery.plugins.module_utils import lease
from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConfigError, LifeboatError
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.plan import (
    approvals,
    build,
    foresee,
    foretelling,
    history,
    judge,
    order,
    outer,
    outline,
    pick,
    pinned,
    refusals,
    together,
    undo,
)
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.plan.filtering import document_of
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.plan.target import TargetErrors
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run import chain, who, words
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run.actions import RunActionBase, run_directory

display = Display()

#: As meta/runtime.yml says.
LEAST_ANSIBLE = "2.19.0"

_SPEC: dict[str, dict[str, Any]] = {
    "step": {"type": "str", "required": True, "choices": ["pick", "build", "judge"]},
    "verb": {"type": "str", "default": "restore"},
    "catalog": {"type": "dict"},
    "digest": {"type": "str", "default": ""},
    "inventory": {"type": "str", "default": ""},
    # pick
    "services": {"type": "raw"},
    "select": {"type": "str", "default": ""},
    "scope": {"type": "str", "default": "service"},
    "limit": {"type": "list", "elements": "str"},
    # build
    "pick": {"type": "dict"},
    "answers": {"type": "dict"},
    "probes": {"type": "list", "elements": "dict"},
    "target": {"type": "str", "default": "latest"},
    "dependants": {"type": "str", "default": ""},
    "confirm": {"type": "str", "default": ""},
    "partial": {"type": "bool", "default": False},
    "forks": {"type": "int"},
    "of_run": {"type": "str", "default": ""},
    "explicit": {"type": "bool", "default": False},
    "root": {"type": "path", "default": ""},
    "approval": {"type": "raw"},
    "flags": {"type": "dict"},
    # judge
    "run": {"type": "dict"},
    "plan": {"type": "dict"},
    "max_loss": {"type": "str", "default": "0"},
    "format": {"type": "str", "default": "text", "choices": ["text", "json"]},
}


def recorded(answers: Optional[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """service -> the runs that its ledgers tell of, where service_state was asked for them."""
    found = {service: (answer or {}).get("runs") for service, answer in (answers or {}).items()}
    return {service: listed for service, listed in found.items() if isinstance(listed, list)}


class ActionModule(RunActionBase):
    """The steps in which a run comes to its plan."""

    _requires_connection = False

    def run(self, tmp: Any = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        del tmp
        _validated, args = self.validate_argument_spec(argument_spec=_SPEC)
        result["changed"] = False
        steps: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "pick": lambda given: self._pick(given, task_vars or {}), "build": lambda given: self._built(given, task_vars or {}),
            "judge": self._judge,
        }
        return self.guarded(result, lambda: steps[args["step"]](args))

    def _pick(self, args: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        document = document_of(args["catalog"])
        verb = args["verb"]
        values = {name: self._templar.template(task_vars[name]) for name in outer.VARIABLES if name in task_vars}
        wrong: list[LifeboatError] = [*outer.check(load_extra_vars(self._loader), values, verb)]
        if wrong:
            return self._refused(wrong, f"{verb} was refused, nothing was touched")
        found = pick.pick_services(document, args["services"], args["select"], args["scope"], args["limit"], verb, args["inventory"])
        measured = history.runs(args["root"], str(document["ecosystem"]), found.picked) if verb == "restore" and args["root"] else []
        known = history.by_service(measured)
        return {
            "pick": found.as_dict(), "picked": found.picked, "unmeasured": [service for service in found.picked if service not in known],
            "outside": refusals.outside(document["services"], found.picked, found.dependants, verb),
        }

    def _built(self, args: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """The plan; from a refusal on the incident waits for people, and that is remembered for the run that follows."""
        refused = True
        try:
            found = self._build(args, task_vars)
            refused = bool(found.get("failed"))
            return found
        finally:
            if refused and args["root"] and not self._task.check_mode:
                chain.refuse(args["root"], str((args["catalog"] or {}).get("ecosystem") or ""), args["verb"], (args["pick"] or {}).get("picked") or [])

    def _build(self, args: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        document, verb = document_of(args["catalog"]), args["verb"]
        services, answers = document["services"], args["answers"] or {}
        chosen = pick.Pick(**args["pick"])
        errors = [*refusals.one_service(chosen.picked, verb), *refusals.confirm(document, verb, args["confirm"], bool(self._task.check_mode))]
        # results of a loop: each carries its item
        probes = [{**probe["item"], "answer": probe} for probe in args["probes"] or [] if isinstance(probe.get("item"), dict)]
        more, live = refusals.live_outside(probes, chosen.dependants, args["dependants"], verb, args["inventory"])
        errors += more
        chosen.dependants = {service: chain for service, chain in chosen.dependants.items() if service in live}
        broken = refusals.unreachable_or_failed(answers)
        which, of_run = args["of_run"], {}
        gone = refusals.gone(answers, os.getppid())
        if verb == "restore":
            built, out, resumes = self._restore(args, document, chosen, answers, broken, errors, gone)
        else:
            if verb in ("rollback", "commit"):
                if broken and not args["partial"]:
                    return self._refused([*errors, *refusals.told_once(broken)], f"{verb} was refused, nothing was touched")
                chosen.picked, which, of_run = undo.narrow(services, chosen.picked, answers, which or "last", verb, args["explicit"])
                broken = {service: error for service, error in broken.items() if service in chosen.picked}
                busy = refusals.leases({service: answers[service] for service in chosen.picked if service not in broken}, gone)
                errors += [] if args["partial"] else busy.values()
                broken.update(busy)
            out = refusals.left_out(services, chosen.picked, broken, "plan") if verb in refusals.STOPPING else {
                service: {"verdict": "failed", "message": str(error), "remedy": error.remedy, "root": None} for service, error in broken.items()}
            built, resumes = outline.outline(document, chosen, verb, args["digest"], args["dependants"]), []
            if verb == "extract":
                built["target"] = args["target"]
            built["warnings"] = [f"{service} cannot be worked on: {error}" for service, error in broken.items()]
        stopping = built.get("stopping") or {}
        if not errors and not stopping:  # what preflight will stop needs no approval
            errors += self._approve(document, built, which, args, task_vars)
        if errors:
            return self._refused(errors, f"{verb} was refused, nothing was touched")
        for dependant in built["dependants"]:
            dependant["of"] = dependant["chain"][-1]
        order.note_stops(built["services"], built["dependants"])
        for service, entry in built["services"].items():
            entry["of_run"] = of_run.get(service, which)
        attempts = [one for answer in answers.values() for one in chain.of_host(answer, verb)]
        return {"plan": built, "picked": chosen.picked, "left_out": out, "resumes": resumes, "gone": gone, "attempts": attempts, "of_run": which}

    def _approve(self, document: Mapping[str, Any], built: dict[str, Any], which: str, args: dict[str, Any], task_vars: dict[str, Any]) -> list[LifeboatError]:
        """Put into the plan what it is approved for and by whom; what keeps it from being carried out (in check mode it is only told)."""
        built["flags"] = {**(args["flags"] or {}), "run": which}
        names = who.names({"who": self.operator(task_vars), "user": lease.identity()["user"]})
        built["approval"] = approvals.standing(document.get("approvals"), built, args["approval"], names)
        missing = built["approval"]["missing"]
        return [ConfigError(missing["what"], missing["where"], missing["remedy"])] if missing and not self._task.check_mode else []

    @staticmethod
    def _restore(
        args: dict[str, Any], document: Mapping[str, Any], chosen: pick.Pick, answers: Mapping[str, Any], broken: dict[str, LifeboatError],
        errors: list[LifeboatError], gone: list[str],
    ) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
        """(plan, who is left out of it, runs that it resumes); errors are added to, and then the rest means nothing."""
        services = document["services"]
        # the others are looked at all the same, so that everything is told at once; preflight stops the run then
        stopping = {} if args["partial"] else dict(broken)
        points = {service: answers[service].get("points") or [] for service in chosen.picked if service not in broken}
        points, warnings, resumes = pinned.pin(services, list(points), points, answers, args["target"])
        busy = refusals.leases({service: answers[service] for service in points}, gone)
        if not args["partial"]:
            errors += busy.values()
        broken.update(busy)
        measured = history.runs(args["root"], str(document["ecosystem"]), chosen.picked, recorded(answers)) if args["root"] else []
        while True:
            out = refusals.left_out(services, chosen.picked, broken, "plan")
            going = order.topological_order(services, [service for service in chosen.picked if service not in out])
            partly = pick.Pick(going, chosen.asked, chosen.added, chosen.dependants, chosen.scope)
            try:
                built = build.build(
                    document, partly, points, args["target"], forks=args["forks"], verb="restore", digest=args["digest"],
                    inventory=args["inventory"], dependants=args["dependants"], history=measured,
                )
            except TargetErrors as error:
                lost = judge.services_of(error, services, going) if args["partial"] else {}
                if not lost:
                    errors += [*error.errors, *refusals.told_once(stopping)]
                    return {}, {}, []
                broken.update(lost)
                continue
            built["warnings"] += warnings
            built["left_out"] = out
            built["stopping"] = {service: error.as_dict() for service, error in stopping.items()}
            if not going or errors:
                errors += refusals.told_once(stopping if going else broken)
            return built, out, resumes

    def _judge(self, args: dict[str, Any]) -> dict[str, Any]:
        """What preflight found, all at once; whether the run goes on, with whom, or once more with older points."""
        document, plan = document_of(args["catalog"]), args["plan"] or {}
        answers = args["answers"] or {}
        points = {service: answer.get("points") or [] for service, answer in (args["pick"] or {}).items()}
        approved = (plan.get("approval") or {}).get("given")
        # an approval is for exactly these points: older ones are another plan
        found = judge.judge(document["services"], plan, answers, points, "0" if approved else args["max_loss"], args["partial"], args["inventory"],
                            document.get("never_restore_into"), together.controller(ansible_version, LEAST_ANSIBLE))
        if approved and any(line.startswith("next ") for line in found["lines"]):
            found["lines"].append("next    the approval is for the points of this plan: name the older point as lifeboat_target, and have that plan approved")
        run = run_directory(args["run"])
        foretold = plan.get("verb") == "restore" and run is not None and not (found["stop"] or found["again"])
        if foretold and run is not None:
            past = history.runs(os.path.dirname(run.path), str(document["ecosystem"]), plan["order"], recorded(args["pick"]))
            found["plan"] = foresee.after_preflight(document, found["plan"], answers, past, run.run, run.plan.get("incident_started"))
            late = foresee.refusals(document, found["plan"])
            if late:
                foresee.refuse(found, late)
        if found["lines"]:
            display.display("\n".join(["Preflight:", *("  " + words.one_line(line, 600) for line in found["lines"])]))
        if foretold:
            display.display(foretelling.render(found["plan"], args["format"]))
        if run is not None and not self._task.check_mode:
            judge.note(run, {**found, "left_out": {**(plan.get("left_out") or {}), **found["left_out"]}})
        elif run is not None:
            judge.keep(run, found["plan"])
        found["left_out"] = {**(plan.get("left_out") or {}), **found["left_out"]}
        found["plan"] = foresee.slim(found["plan"])
        if found["stop"] and self._task.check_mode:
            # Ansible prints all of an answer that failed; what was found stands above
            return {"failed": True, "msg": found["message"], "remedy": found["remedy"]}
        return found

    @staticmethod
    def _refused(errors: list[LifeboatError], summary: str) -> dict[str, Any]:
        lines = [line for error in errors for line in str(error).splitlines()]
        if len(lines) > 1:
            display.display("\n".join([f"{summary}:", *("  " + words.one_line(line, 600) for line in lines)]))
        return {"failed": True, "msg": lines[0] + (f" [and {len(lines) - 1} more, above]" if len(lines) > 1 else ""), "errors": lines}
