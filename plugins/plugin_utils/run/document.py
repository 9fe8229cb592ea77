# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""run.json: the whole run in one document, built from the files of the run directory. docs/run.schema.json describes it."""

from __future__ import annotations

from typing import Any, Optional

from ansible_collections.lifeboat.recovery.plugins.plugin_utils.plan import outcome
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run import (
    audit,
    commands,
    controls,
    evidence,
    forecasts,
    journal,
    measure,
    timings,
    who,
    words,
)
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run.directory import RunDirectory

SCHEMA = "lifeboat.run/1"
OUTCOMES = {words.EXIT_SUCCESS: "success", words.EXIT_DEGRADED: "degraded", words.EXIT_FAILED: "failed"}


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list):
        return []
    return [words.one_line(_sentence(item) if isinstance(item, dict) else item) for item in value]


def _sentence(item: dict[str, Any]) -> Any:
    """An error as its one line, "what: where; remedy", as far as it has these parts."""
    if not item.get("what"):
        return item.get("message") or item
    return str(item["what"]) + (f": {item['where']}" if item.get("where") else "") + (f"; {item['remedy']}" if item.get("remedy") else "")


def build(run: RunDirectory, sealed_by: str = "") -> dict[str, Any]:
    """The document of a run. While services have no verdict its outcome is "" and its exit code is that of a failure.

    ``sealed_by``: the run that found this one without an end. Reads files only; may be called at any time.
    """
    plan, picked, states = run.plan, run.picked(), run.states()
    marks = timings.clean(run.timings())
    origin = next((mark for mark in marks if mark["event"] == "begun"), None) or (marks[0] if marks else timings.now_mark())
    end = next((mark for mark in reversed(marks) if mark["event"] == "sealed"), None)
    if end is None:
        end = (marks[-1] if marks else origin) if sealed_by or run.sealed() else timings.now_mark()
    entries = words.table_of_services(plan.get("services"))
    services = {name: _service(run, name, states.get(name) or {}, entries.get(name, {}), marks, origin, end) for name in picked}
    verdicts = {name: services[name]["verdict"] for name in picked}
    verb = str(run.run.get("verb", ""))
    inside, waited = timings.human_wait(marks, end), measure.human(plan, marks, origin, end)
    wall = timings.seconds_between(origin, end)
    chain = journal.read(run.file("journal.jsonl"))
    decided = outcome.outcome({name: verdict for name, verdict in verdicts.items() if verdict}, verb, picked)
    finished = all(verdicts.values()) and bool(picked)
    trail = audit.shown(run, chain)
    lost = [copy for copy in trail["copies"] if copy["required"] and not copy["ok"]]
    if lost and finished:
        why = f"the journal did not reach {lost[0]['where']}, which the catalog requires"
        decided = {**decided, "exit": words.EXIT_FAILED, "message": f"{decided['message']}; {why}"}
    result = "interrupted" if sealed_by else (OUTCOMES[decided["exit"]] if finished else "")
    _clocks(services, plan, marks, origin)
    problems = [f"journal: {chain.problem}"] if chain.problem else []
    problems += trail["problems"] + [f"copy of the journal: {copy['problem']}" for copy in trail["copies"] if not copy["ok"]]
    problems += [f"ledger of {name}: {item['ledger']['problem']}" for name, item in services.items() if item["ledger"]["problem"]]
    return {
        "schema": SCHEMA,
        "run": {
            "id": run.run.get("id"), "verb": verb, "controller": run.run.get("controller"), "user": run.run.get("user"), "pid": run.run.get("pid"),
            "started": run.run.get("started"), "finished": words.iso(end["time"]), "resumes": [str(item) for item in plan.get("resumes") or []],
            "resumed_by": sealed_by or None, "directory": run.path, "who": who.of_run(run.run),
        },
        "ecosystem": str(plan.get("ecosystem") or ""),
        "catalog_digest": plan.get("catalog") if isinstance(plan.get("catalog"), str) and plan.get("catalog") else None,
        "target": commands.target_of(plan),
        "outcome": result,
        "exit": {"code": decided["exit"], "reason": decided["message"]},
        "counts": {"picked": len(picked), "verdicts": sum(1 for verdict in verdicts.values() if verdict), "by": _tally(verdicts)},
        "wall": {"seconds": wall, "human_wait_seconds": inside, "net_seconds": round(max(0.0, wall - inside), 3)},
        "human": {**waited, "detect_seconds": measure.detect(plan, origin), "attempts": [one for one in plan.get("chain") or [] if isinstance(one, dict)]},
        "incident": plan.get("incident_started"),
        "forecast": forecasts.compared(plan, services),
        "islands": _islands(plan, picked),
        "services": services,
        "clients": _clients(run, picked),
        "findings": [{**item, "service": name} for name in picked for item in evidence.findings(run.kept(name))],
        "warnings": [
            *_texts(plan.get("warnings")), *problems,
            *(f"{name}: {text}" for name in picked for text in services[name]["warnings"]),
        ],
        "next": commands.following(plan, picked),
        "journal": {"entries": len(chain.entries), "head": chain.head, "whole": chain.whole, "problem": chain.problem},
        "audit": trail,
    }


def _clients(run: RunDirectory, picked: list[str]) -> Optional[dict[str, Any]]:
    """What clients of services outside the pick saw meanwhile, by service; None when nobody watched."""
    found = {}
    for name in run.others(picked):
        seen = run.kept(name).get("clients")
        if isinstance(seen, dict):
            found[name] = {key: seen.get(key) for key in ("probes", "errors", "p50", "p95", "max", "seconds")}
    return found or None


def _tally(verdicts: dict[str, Any]) -> dict[str, int]:
    found: dict[str, int] = {}
    for verdict in verdicts.values():
        if verdict:
            found[verdict] = found.get(verdict, 0) + 1
    return found


def _islands(plan: dict[str, Any], picked: list[str]) -> list[list[str]]:
    found = []
    for island in plan.get("islands") or []:
        members = island.get("services") if isinstance(island, dict) else island
        if isinstance(members, list):
            found.append([str(name) for name in members if name in picked])
    return [island for island in found if island] or [[name] for name in picked]


def _service(
    run: RunDirectory, name: str, state: dict[str, Any], planned: dict[str, Any], marks: list[dict[str, Any]], origin: dict[str, Any], end: dict[str, Any],
) -> dict[str, Any]:
    kept, entries = run.kept(name), run.collected(name)
    done = timings.verdict_mark(marks, name)
    phases = timings.phases(marks, name, origin, done or end)
    sources = evidence.sources(kept, entries)
    checked = evidence.checks(kept)
    moved = evidence.touched(state, kept, entries, {phase["name"] for phase in phases}, str(run.run.get("id")))
    noop = any(_mapping(kept.get(subject)).get("noop") is True for subject in ("staged", "live"))
    # ``notes`` is what a module of ours warned of, ``warnings`` the same in Ansible's own form, and what others said
    told = [_mapping(kept.get(subject)) for subject in evidence.SUBJECTS]
    warnings = list(dict.fromkeys(text for answer in told for text in _texts(answer["notes"] if answer.get("notes") else answer.get("warnings"))))
    return {
        "verdict": state.get("verdict"),
        "phase": str(state.get("failed_phase") or state.get("phase") or "plan"),
        "root": _root(state.get("root")),
        "message": words.one_line(state.get("message") or ""),
        "remedy": words.one_line(state.get("remedy") or ""),
        "failure": state.get("failure") if isinstance(state.get("failure"), dict) else None,
        "degraded_by": [str(item) for item in state.get("degraded_by") or []],
        "requires": _requires(planned.get("requires")),
        "snapshots": {source: str(facts["snapshot"]) for source, facts in sources.items() if facts.get("snapshot")},
        "digests": {
            source: {"captured": facts.get("captured"), "found": facts.get("found"), "equal": facts.get("equal")}
            for source, facts in sources.items() if facts.get("captured") or facts.get("found")
        },
        "proof": {
            "kind": _kind(sources, planned),
            "sources": {source: {key: facts.get(key) for key in ("type", "state", "proof", "equal", "bytes", "reached")} for source, facts in sources.items()},
            "checks": checked,
            "checks_passed": sum(1 for item in checked if item["ok"]),
        },
        "phases": phases,
        "waited_seconds": round(sum(phase["seconds"] for phase in phases if phase["name"] in words.WAITING_PHASES), 3),
        "measured": measure.of_service(kept, phases, timings.seconds_between(origin, done or end)),
        "bytes": {
            "source": _sum(sources, "bytes"), "stored": _sum(sources, "bytes_stored"),
        },
        "touched": moved,
        "noop": noop,
        "started": phases[0]["start"] if phases else None,
        "finished": words.iso(done["time"]) if done else None,
        "seconds": timings.seconds_between(origin, done) if done else None,
        "rto": {"limit": planned.get("rto") if isinstance(planned.get("rto"), (int, float)) else None, "raw": None, "net": None, "met": None},
        "controls": controls.of_service(kept, sources, run.plan),
        "ledger": evidence.chain_state(entries),
        "warnings": warnings,
    }


def _clocks(services: dict[str, dict[str, Any]], plan: dict[str, Any], marks: list[dict[str, Any]], origin: dict[str, Any]) -> None:
    """Fill in the recovery time of each service: from the incident to its verdict, raw and without waiting for people."""
    planned = words.table_of_services(plan.get("services"))
    for name, item in services.items():
        done = timings.verdict_mark(marks, name)
        if done is not None:
            before = measure.human(plan, [mark for mark in marks if mark["time"] <= done["time"]], origin, done)["seconds"]
            item["rto"] = measure.recovery(plan, planned.get(name, {}), origin, done, before, item["verdict"] in words.USABLE)


def _root(root: Any) -> Optional[dict[str, str]]:
    if not isinstance(root, dict) or not root.get("service"):
        return None
    return {key: words.one_line(root.get(key) or "") for key in ("service", "verdict", "phase", "message", "remedy")}


def _requires(value: Any) -> list[dict[str, str]]:
    found = []
    for item in value if isinstance(value, list) else []:
        if isinstance(item, dict):
            found.append({"service": str(item.get("service", "")), "kind": str(item.get("kind") or "hard")})
        else:
            found.append({"service": str(item), "kind": "hard"})
    return found


def _kind(sources: dict[str, dict[str, Any]], planned: dict[str, Any]) -> str:
    """The weakest kind of proof over the sources: none < physical < content; ``stateless`` for a service without sources."""
    if not sources:
        return "none" if planned.get("sources") else "stateless"
    kinds = {str(facts.get("proof") or ("content" if facts.get("equal") else "none")) for facts in sources.values()}
    for kind in ("none", "physical", "content"):
        if kind in kinds:
            return kind
    return sorted(kinds)[0]


def _sum(sources: dict[str, dict[str, Any]], key: str) -> Optional[int]:
    numbers = [facts[key] for facts in sources.values() if isinstance(facts.get(key), (int, float))]
    return int(sum(numbers)) if numbers else None
