# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Begin a run, note where its services stand, and finish it with the decision whether it was a success."""

from __future__ import annotations

import os
from typing import Any, Callable, Optional

from ansible.errors import AnsibleError
from ansible.utils.display import Display

from ansible_collections.lifeboat.recovery.plugins.module_utils import policy
from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConfigError
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.plan import outcome
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run import audit, lifecycle, presence, screens, standing, timeline, words
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run.actions import RunActionBase, run_directory
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run.directory import RunDirectory

display = Display()

_SPEC: dict[str, dict[str, Any]] = {
    "step": {"type": "str", "required": True, "choices": ["begin", "phase", "verdict", "on_error", "note", "human_wait", "finish"]},
    "run": {"type": "dict"},
    "run_dir": {"type": "path"},
    # begin
    "verb": {"type": "str"},
    "ecosystem": {"type": "str"},
    "plan": {"type": "dict"},
    "picked": {"type": "list", "elements": "str"},
    "root": {"type": "path", "default": "runs"},
    "incident_started": {"type": "str", "default": ""},
    "resumes": {"type": "list", "elements": "str"},
    "gone": {"type": "list", "elements": "str"},
    "attempts": {"type": "list", "elements": "dict"},
    "invocation": {"type": "dict"},
    "show": {"type": "bool", "default": True},
    # phase, verdict, on_error, note
    "policy": {"type": "dict"},
    "service": {"type": "str"},
    "phase": {"type": "str", "choices": list(words.PHASES)},
    "event": {"type": "str", "choices": ["start", "end"], "default": "start"},
    "outcome": {"type": "str", "choices": ["done", "failed"], "default": "done"},
    "verdict": {"type": "str"},
    "text": {"type": "str", "default": ""},
    "remedy": {"type": "str", "default": ""},
    "degraded_by": {"type": "list", "elements": "str"},
    "subject": {"type": "str"},
    "answer": {"type": "dict"},
    # finish
    "publish": {"type": "dict"},
}
#: Steps that are nothing without a service.
_NEED_SERVICE = ("phase", "verdict", "on_error", "note")


class ActionModule(RunActionBase):
    """Controller only: files of the run directory. Never reports ``changed``: it changes nothing of the ecosystem."""

    _requires_connection = False

    def run(self, tmp: Any = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        del tmp
        _validated, args = self.validate_argument_spec(argument_spec=_SPEC)
        result["changed"] = False
        steps: dict[str, Callable[[RunDirectory, dict[str, Any]], dict[str, Any]]] = {
            "phase": self._phase, "verdict": self._verdict, "on_error": self._on_error, "note": self._note, "human_wait": self._human_wait,
            "finish": lambda run, given: self._finish(run, given, task_vars or {}),
        }

        def work() -> dict[str, Any]:
            if args["step"] == "begin":
                return self._begin(args, task_vars or {})
            run = run_directory(args.get("run"), args.get("run_dir"))
            if run is None:
                raise ConfigError("this step needs a run", f"run_state step {args['step']}", "pass run or run_dir of the step begin")
            if args["step"] in _NEED_SERVICE and not args.get("service"):
                raise ConfigError("this step needs a service", f"run_state step {args['step']}", "pass service")
            if self._task.check_mode:
                return {"msg": "check mode: nothing is noted"}
            return steps[args["step"]](run, args)

        return self.guarded(result, work)

    def _published(self, run: RunDirectory, args: dict[str, Any], task_vars: dict[str, Any]) -> bool:
        """See to the journals of this run and of former ones that were left; whether anything was learnt about this one's."""
        about, service = args.get("publish"), str(args.get("service") or "")
        if not isinstance(about, dict) or not about.get("repository") or not service:
            return audit.send(run)

        def ask(which: RunDirectory) -> Callable[[str], dict[str, Any]]:
            def call(text: str) -> dict[str, Any]:
                given = {**about, "service": service, "run": {key: which.run.get(key) for key in ("id", "verb", "user", "controller")}, "journal": text}
                try:
                    return dict(self._execute_module(module_name="lifeboat.recovery.journal", module_args=given, task_vars=task_vars))
                except AnsibleError as error:  # a host that is gone is no reason to lose the end of the run
                    return {"failed": True, "msg": words.one_line(error, 300)}
            return call

        news = audit.publish(run, service, ask(run))
        own = audit.state(run)
        if news and own["published"]:
            for former in audit.pending(run, service):
                if audit.state(former)["published"] and not own["done"]:
                    continue  # a place that did not take this one would not take that one either
                if audit.publish(former, service, ask(former), later=True):
                    lifecycle.write_documents(former)
        return news

    def _begin(self, args: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        for name in ("verb", "ecosystem", "plan"):
            if not args.get(name):
                raise ConfigError(f"the step begin needs {name}", "run_state", f"pass {name}")
        plan = dict(args["plan"])
        picked = args.get("picked")
        if picked is None:
            order = plan.get("order")
            picked = [str(name) for name in order] if isinstance(order, list) else list(words.table_of_services(plan.get("services")))
        run = lifecycle.begin(
            args["verb"], args["ecosystem"], plan, [str(name) for name in picked], directory_path=args.get("run_dir") or "", root=args["root"],
            check=bool(self._task.check_mode), incident_started=args["incident_started"], resumes=args.get("resumes"),
            attempts=args.get("attempts"), gone=args.get("gone"), pid=os.getppid(), extra={"invocation": args.get("invocation") or {}},
            operator=self.operator(task_vars),
        )
        if args["show"]:
            display.display(screens.plan_text({**run.plan, "directory": run.path}, run.picked()))
        owner = {**run.run, "directory": run.path}
        return {"run": owner, "run_dir": run.path, "picked": run.picked(), "resumes": run.plan["resumes"], "plan_file": run.file("plan.json")}

    def _phase(self, run: RunDirectory, args: dict[str, Any]) -> dict[str, Any]:
        if not args.get("phase"):
            raise ConfigError("the step phase needs a phase", "run_state", "pass phase")
        self._keep(run, args)
        state = run.phase(args["service"], args["phase"], args["event"], args["outcome"])
        return {"phase": state["phase"], "done": state["done"]}

    def _verdict(self, run: RunDirectory, args: dict[str, Any]) -> dict[str, Any]:
        if not args.get("verdict"):
            raise ConfigError("the step verdict needs a verdict", "run_state", "pass verdict")
        self._keep(run, args)
        if args.get("degraded_by"):
            run.degraded(args["service"], args["degraded_by"])
        state = run.verdict(args["service"], args["verdict"], args["text"], args["remedy"], phase=args.get("phase") or "")
        return {key: state.get(key) for key in ("verdict", "message", "remedy", "root")}

    def _on_error(self, run: RunDirectory, args: dict[str, Any]) -> dict[str, Any]:
        """{"phase": where the service failed, "action": fail or rollback}."""
        state = run.state(args["service"]) or {}
        phase = str(state.get("phase") or "plan")
        action = policy.of({"policy": args.get("policy") or {}}, phase).on_error if phase in policy.STEPS else "fail"
        if state.get("open") and action == "rollback":
            run.phase(args["service"], phase, "end", "failed")
        return {"phase": phase, "action": action}

    def _note(self, run: RunDirectory, args: dict[str, Any]) -> dict[str, Any]:
        self._keep(run, args)
        if args["text"]:
            run.journal().append("note", args["service"], args.get("phase") or "", {"message": words.one_line(args["text"])})
        return {}

    def _keep(self, run: RunDirectory, args: dict[str, Any]) -> None:
        if args.get("answer"):
            standing.take_over(run, args["service"], args["answer"], args.get("subject") or "")

    def _human_wait(self, run: RunDirectory, args: dict[str, Any]) -> dict[str, Any]:
        run.mark(args.get("service") or "", "plan", "human_start" if args["event"] == "start" else "human_end")
        run.journal().append(f"human_wait_{args['event']}", args.get("service") or "", data={"message": words.one_line(args["text"])})
        return {}

    def _finish(self, run: RunDirectory, args: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """The first host to come here seals the run, signs and publishes its journal and prints its end; every host fails for its own service only."""
        document = lifecycle.finish(run)
        if self._published(run, args, task_vars):
            document = lifecycle.write_documents(run)
        if not presence.watched() and run.claim("shown"):
            display.display(timeline.render(document))
            display.display(screens.ending(run, document))
        told = {"outcome": document["outcome"], "exit_code": document["exit"]["code"], "counts": document["counts"], "run_json": run.file("run.json")}
        service = args.get("service")
        if service:
            item = document["services"].get(service)
            if item is None:
                return {**told, "failed": True, "msg": f"{service} is not in run {document['run']['id']}: it was not picked"}
            alone = outcome.outcome({service: item["verdict"]}, document["run"]["verb"], [service])
            said, verdict = str(item["message"]), str(item["verdict"])
            text = f"{service}: " + (said if said.startswith(verdict) else verdict + (f", {said}" if said else ""))
            whole = document["exit"]["code"] != 0 and document["counts"]["verdicts"] != document["counts"]["picked"]
            failed = alone["exit"] != 0 or whole
            return {**({} if failed else told), "verdict": verdict, "failed": failed, "msg": text}
        return {**told, "failed": document["exit"]["code"] != 0, "msg": document["exit"]["reason"]}
