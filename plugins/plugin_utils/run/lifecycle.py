# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Begin, seal and finish a run."""

from __future__ import annotations

import os
import secrets
import time
from typing import Any, Optional

from ansible_collections.lifeboat.recovery.plugins.module_utils import lease
from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConfigError, ConflictError, StorageError
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run import audit, chain, document, files, journal, report, who, words
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run.directory import RunDirectory


def new_run_id(verb: str, now: Optional[float] = None, token: Optional[str] = None) -> str:
    """``YYYYMMDDTHHMMSSZ-<verb>-<6 hex>``: sorts by time, says what it was, never repeats."""
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(time.time() if now is None else now))
    run = f"{moment}-{verb}-{token or secrets.token_hex(3)}"
    if not words.RUN_ID.match(run):
        raise ConfigError("this cannot be a verb", words.one_line(verb, 40), "use lower-case letters and _")
    return run


def unfinished(root: str, ecosystem: str, verb: str) -> list[RunDirectory]:
    """Runs of this ecosystem and verb under ``root`` that have no end, oldest first."""
    found = []
    try:
        names = sorted(os.listdir(root))
    except OSError:
        return []
    for name in names:
        if not words.RUN_ID.match(name):
            continue
        candidate = RunDirectory(os.path.join(root, name))
        if not candidate.exists() or candidate.sealed():
            continue
        plan = candidate.plan
        if plan.get("check") or plan.get("ecosystem") != ecosystem or candidate.run.get("verb") != verb:
            continue
        found.append(candidate)
    return found


def seal_interrupted(former: RunDirectory, by: str) -> None:
    """Give a run that lost its controller its end: verdict ``interrupted`` for whoever had none, then run.json and the report."""
    if journal.read(former.file("journal.jsonl")).seal is not None:
        write_documents(former)  # it had come to its end, and only run.json was not written any more
        return
    for service in former.picked():
        state = former.state(service) or former.enter(service)
        if not state.get("verdict"):
            former.verdict(
                service, "interrupted", f"the run ended in phase {state.get('phase') or 'plan'} without a verdict",
                f"resumed by {by}" if by else "run the same command again",
            )
    _close(former, document.build(former, sealed_by=by), {"by": by})
    write_documents(former, sealed_by=by)


def _close(run: RunDirectory, result: dict[str, Any], more: dict[str, Any]) -> None:
    """The last entry of a journal, which says how each service ended and by which controls, and the seal after it."""
    audit.close(run, {
        "outcome": result["outcome"], "exit": result["exit"]["code"], "counts": result["counts"], **more,
        "services": {
            name: {
                "verdict": item["verdict"], "snapshots": item["snapshots"], "digests": item["digests"], "controls": item["controls"],
                "ledger": {key: item["ledger"][key] for key in ("entries", "seq", "head")},
            }
            for name, item in result["services"].items()
        },
    })


def write_documents(run: RunDirectory, sealed_by: str = "") -> dict[str, Any]:
    """Write run.json and report.html from the files of the run; may be repeated at any time, also long after."""
    known = files.read_json(run.file("run.json"))
    if not sealed_by and isinstance(known, dict) and known.get("outcome") == "interrupted":
        sealed_by = str(known["run"].get("resumed_by") or "")  # how it ended is never forgotten
    result = document.build(run, sealed_by=sealed_by)
    files.replace_json(run.file("run.json"), result, indent=2)
    files.replace(run.file("report.html"), report.render(result).encode())
    return result


def begin(
    verb: str, ecosystem: str, plan: dict[str, Any], picked: list[str], directory_path: str = "", root: str = "runs",
    check: bool = False, incident_started: str = "", resumes: Optional[list[str]] = None, pid: Optional[int] = None,
    extra: Optional[dict[str, Any]] = None, operator: Optional[dict[str, Any]] = None, attempts: Optional[list[dict[str, Any]]] = None,
    gone: Optional[list[str]] = None,
) -> RunDirectory:
    """Create the run's directory and write plan.json into it; in check mode nothing but that.

    ``plan``: whatever the planner made (order, islands, services, target, findings, warnings, …), kept whole. ``picked``: the services
    this run answers for. ``pid``: the process of ansible-playbook. ``operator``: as who.of(). Former runs without an end whose process is gone are sealed as
    interrupted and named in ``resumes``. ``attempts``: what the hosts know of earlier ones (chain.py). ``gone``: runs that still hold services and whose
    process on this machine is gone.
    ConflictError when one of them still lives on this controller.
    """
    if incident_started and words.from_iso(incident_started) is None:
        raise ConfigError(
            "lifeboat_incident_started is not a time with a zone", words.one_line(incident_started, 60), "write it like 2030-01-31T12:00:00Z"
        )
    if verb not in words.SUCCESS:
        raise ConfigError("nothing is known of this verb", words.one_line(verb, 40), "use one of " + ", ".join(sorted(words.SUCCESS)))
    if not picked:
        raise ConfigError("no service was picked", ecosystem, "see lifeboat_services, lifeboat_select and --limit")
    run = new_run_id(verb)
    root = os.path.dirname(os.path.abspath(os.path.expanduser(directory_path))) if directory_path else os.path.abspath(os.path.expanduser(root))
    target = RunDirectory(directory_path or os.path.join(root, run))
    if target.exists():
        raise ConflictError("another run lives in this directory", target.path, "set lifeboat_run_dir to a new folder")
    warnings: list[str] = []
    former_ids = list(resumes or [])
    if not check:
        for former in unfinished(root, ecosystem, verb):
            living, shared = former.alive(), set(former.picked()) & set(picked)
            if living and shared and former.run.get("pid") == (pid or os.getpid()):
                living = False  # an earlier part of this very playbook that failed before its end; nothing of it runs any more
            if living:
                if shared:
                    raise ConflictError(
                        f"run {former.run.get('id')} of {former.run.get('user')} works on these services since {former.run.get('started')}",
                        former.path, f"wait for it, or stop process {former.run.get('pid')}",
                    )
                continue
            if living is None:
                warnings.append(
                    f"run {former.run.get('id')} has no end and belongs to controller {former.run.get('controller')}: it was left as it is"
                )
                continue
            try:
                seal_interrupted(former, run)
            except StorageError as error:  # somebody's hand was in it: that run stays as it is, and does not stand in the way of this one
                warnings.append(f"run {former.run.get('id')} has no end and cannot be given one: {error}")
                continue
            if former.run.get("id") not in former_ids:
                former_ids.append(str(former.run["id"]))
    target.make(check)
    now = time.time()
    started = words.iso(now)
    tried = [] if check else chain.joined([
        *(attempts or []), *chain.of_folder(root, ecosystem, verb, picked), *chain.refused(root, ecosystem, verb, picked),
    ], now)
    owner = {
        **lease.identity(pid or os.getpid()), "id": run, "verb": verb, "started": started, "resumes": former_ids[-1] if former_ids else None,
        "who": operator or who.of({}), "gone": list(gone or []),
    }
    content = {
        **plan, **(extra or {}), "schema": "lifeboat.plan/1", "run": owner, "ecosystem": ecosystem, "picked": picked, "check": check,
        "resumes": former_ids, "incident_started": _incident(root, incident_started, former_ids, tried, started), "chain": tried,
        "warnings": list(plan.get("warnings") or []) + warnings,
    }
    files.replace_json(target.file("plan.json"), content, indent=2)
    if check:
        return target
    target.journal().append("begun", data={
        "plan": files.digest(target.file("plan.json")), "picked": picked, "resumes": former_ids, "user": owner["user"],
        "controller": owner["controller"], "who": owner["who"], "approval": content.get("approval"),
        "before": audit.before(target, ecosystem),
    })
    target.mark("", "plan", "begun")
    for service in picked:
        target.enter(service)
    return target


def _incident(root: str, asked: str, former: list[str], tried: list[dict[str, Any]], started: str) -> dict[str, Any]:
    """When the clock of the recovery time began: as asked, else as the runs before say, else the first attempt at the same incident."""
    if asked:
        return {"time": asked, "source": "lifeboat_incident_started"}
    for run in [*former, *(str(one["run"]) for one in tried if one["run"])]:
        plan = files.read_json(os.path.join(root, run, "plan.json"))
        incident = plan.get("incident_started") if isinstance(plan, dict) else None
        if isinstance(incident, dict) and words.from_iso(incident.get("time")) is not None:
            return {"time": incident["time"], "source": f"run {run}"}
    if tried:
        return {"time": tried[0]["began"], "source": f"run {tried[0]['run']}" if tried[0]["run"] else "a plan that was refused"}
    return {"time": started, "source": "start of this run"}


def finish(run: RunDirectory) -> dict[str, Any]:
    """Seal the run: missing verdicts become ``failed``, then run.json and report.html. Safe to call again; the first call decides."""
    with files.locked(run.file("finish.lock"), timeout=60):
        if run.sealed():
            found = files.read_json(run.file("run.json"))
            if isinstance(found, dict):
                return found
        for service in run.picked():
            state = run.state(service) or run.enter(service)
            if not state.get("verdict"):
                run.verdict(
                    service, "failed", f"the run ended while the service was in phase {state.get('phase') or 'plan'}; it never got a verdict",
                    "see the first error above, then run the same command again",
                )
        result = document.build(run)
        _close(run, result, {})
        run.mark("", "plan", "sealed")
        return write_documents(run)
