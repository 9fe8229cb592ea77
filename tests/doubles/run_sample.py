# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run directories as real runs leave them, with chosen times: six services of a shop, one of which fails when asked to."""

from __future__ import annotations

import json
import os
from typing import Any

from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run import files, journal, lifecycle, words
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run.directory import RunDirectory

RUN = "20300131T120000Z-restore-0a1b2c"
BEGAN = 1896091200.0  # 2030-01-31T12:00:00Z
_ORDER = ("preflight", "stage", "stop", "cutover", "start", "health", "invariants", "protect")


def _seconds(*values: float) -> dict[str, float]:
    """Seconds of each phase; 0 for one that the service does not go through."""
    return {phase: value for phase, value in zip(_ORDER, values) if value}


#: service -> (requirements, source, bytes, seconds of each phase)
SHOP: dict[str, tuple[list[str], str, int, dict[str, float]]] = {
    "identity": ([], "db", 310 << 20, _seconds(0.9, 6.1, 0.7, 0.6, 1.2, 0.8, 0.4, 0.5)),
    "inventory": ([], "db", 920 << 20, _seconds(1.0, 11.4, 0.6, 0.7, 1.1, 0.5, 0.9, 0.5)),
    "orders": (["identity", "inventory"], "db", 3 << 30, _seconds(1.1, 19.8, 0.9, 1.4, 2.3, 1.7, 1.6, 0.8)),
    "payments": (["orders"], "db", 1 << 30, _seconds(1.0, 9.7, 0.8, 0.8, 1.5, 0.9, 0.7, 0.4)),
    "sessions": (["identity"], "cache", 64 << 20, _seconds(0.8, 1.4, 0.3, 0.2, 0.4, 0.3, 0.2, 0.2)),
    "gateway": (["orders", "payments", "~sessions"], "", 0, _seconds(0.5, 0, 0.4, 0, 0.9, 1.1, 0.3, 0)),
}


def plan() -> dict[str, Any]:
    """The plan of the sample."""
    return {
        "order": list(SHOP), "islands": [list(SHOP)], "target": "latest", "warnings": [], "catalog": "ab" * 32,
        "services": {
            name: {
                "requires": [{"service": one.lstrip("~"), "kind": "soft" if one[0] == "~" else "hard", "picked": True} for one in needs],
                "waits_for": [{"service": one.lstrip("~"), "kind": "soft" if one[0] == "~" else "hard"} for one in needs],
                "sources": [source] if source else [], "bytes": size, "rto": 90,
                "resolution": {"point": "20300131T060000Z-backup-ffee00", "time": "2030-01-31T06:00:00Z"},
            } for name, (needs, source, size, _phases) in SHOP.items()
        },
    }


def mark(run: RunDirectory, service: str, phase: str, event: str, at: float, **more: Any) -> None:
    files.append_line(run.file("timings.jsonl"), files.canonical(
        {"service": service, "phase": phase, "event": event, "time": BEGAN + at, "mono": 1000.0 + at, "boot": "b", **more}
    ))


def ledger(service: str, source: str, upto: str) -> list[dict[str, Any]]:
    """A host's entries for a restore that came as far as ``upto``."""
    found: list[dict[str, Any]] = []
    head = journal.ZERO
    digest = {"algorithm": "lifeboat-pg-1", "value": (service.encode().hex() * 8)[:64]}
    steps = [
        ("stage.intent", {"source": source, "snapshot": f"{service}.{source}-000007-1a2b3c4d", "digest": digest}),
        ("stage.filled", {"source": source}), ("stage.verified", {"source": source, "digest": digest, "proof": "content", "items": 4711}),
        ("cutover.intent", {"source": source}), ("cutover.done", {"source": source}), ("restore.live", {}),
    ]
    for number, (event, data) in enumerate(steps, 41):
        entry: dict[str, Any] = {
            "seq": number, "time": words.iso(BEGAN), "run": RUN, "verb": "restore", "service": service, "phase": event.split(".")[0], "event": event,
            "data": {"restore": RUN, **data}, "prev": head,
        }
        entry["hash"] = head = journal.digest(entry)
        found.append(entry)
        if event == upto:
            break
    return found


def _measured(size: int, seconds: float) -> dict[str, Any]:
    """What a stage of this size tells of its steps: half of it was there already."""
    share = {"fetch": 0.5, "decode": 0.7, "write": 0.4, "replay": 0.2, "verify": 0.3}
    return {
        "steps": {
            step: {"seconds": round(part * seconds, 3), "busy": round(part * seconds * (1.9 if step == "decode" else 1), 3)} for step, part in share.items()
        },
        "bytes": {"fetched": size // 5, "written": size // 2, "reused": size - size // 2},
    }


def _usage(size: int) -> dict[str, Any]:
    return {"cpu_seconds": round(size / 2e8, 3), "peak_memory_bytes": 96 << 20, "read_bytes": size, "written_bytes": size // 2}


def make(
    folder: str, fail: str = "", text: str = "GET http://127.0.0.1:8081/health answered 503", check: str = "every payment has its order",
) -> RunDirectory:
    """Write the run. ``fail``: the service whose health fails. ``text`` and ``check`` may be as hostile as you like."""
    run = RunDirectory(os.path.join(folder, RUN))
    run.make()
    document = {
        **plan(), "schema": "lifeboat.plan/1", "picked": list(SHOP), "check": False, "ecosystem": "shop", "resumes": [],
        "chain": [
            {"run": "20300131T115931Z-restore-9a9b9c", "began": "2030-01-31T11:59:31Z", "ended": "2030-01-31T11:59:42Z", "verdict": "failed"},
        ] if fail else [],
        "incident_started": {"time": "2030-01-31T11:59:30Z", "source": "lifeboat_incident_started"}, "invocation": {"catalog": "shop.catalog.yml"},
        "run": {
            "id": RUN, "verb": "restore", "controller": "ops1", "user": "anna", "pid": 4711, "pid_started": "1", "boot": "b",
            "started": words.iso(BEGAN), "resumes": None,
        },
    }
    files.replace_json(run.file("plan.json"), document)
    run.journal().append("begun", data={"picked": list(SHOP)})
    mark(run, "", "plan", "begun", 0.0)
    ended: dict[str, float] = {}
    staged: dict[str, float] = {}
    bad: set[str] = set()
    for name in SHOP:
        run.enter(name)
    for name, (_needs, _source, _size, phases) in SHOP.items():
        now = 1.0
        for phase in ("preflight", "stage"):
            if phase in phases:
                mark(run, name, phase, "start", now)
                now += phases[phase]
                mark(run, name, phase, "end", now, outcome="done")
        staged[name] = now
    island = max(staged.values()) + 0.1
    for name, (needs, source, size, phases) in SHOP.items():
        now = staged[name] + 0.02
        mark(run, name, "island", "start", now)
        slowest = max(staged, key=lambda one: staged[one])
        if slowest != name:
            mark(run, name, "island", "wait", island, on=slowest, seconds=round(island - now, 3))
        now = island
        mark(run, name, "stop", "start", now)
        now += phases["stop"]
        mark(run, name, "gate", "start", now)
        opened = max([now, *(ended[one.lstrip("~")] for one in needs)]) + 0.03
        for one in needs:
            mark(run, name, "gate", "wait", opened, on=one.lstrip("~"), seconds=round(max(0.0, ended[one.lstrip("~")] - now), 3))
        broken = next((one.lstrip("~") for one in needs if one.lstrip("~") in bad and one[0] != "~"), "")
        now = opened
        state = run.state(name) or {}
        verdict, message, root, remedy = "verified", "", None, ""
        if broken:
            bad.add(name)
            verdict, message, remedy = "blocked", f"blocked by {fail} (failed in phase health): {text}", f"mend {fail}, then run the same command again"
            root = {"service": fail, "verdict": "failed", "phase": "health", "message": text, "remedy": ""}
            mark(run, name, "gate", "end", now, outcome="failed")
        else:
            mark(run, name, "gate", "end", now, outcome="done")
            for phase in ("cutover", "start", "health", "invariants", "protect"):
                if phase not in phases:
                    continue
                mark(run, name, phase, "start", now)
                now += phases[phase]
                if phase == "health" and name == fail:
                    bad.add(name)
                    verdict, message, remedy = "failed", text, "see the log of the service"
                    root = {"service": name, "verdict": "failed", "phase": "health", "message": text}
                    mark(run, name, phase, "end", now, outcome="failed")
                    break
                mark(run, name, phase, "end", now, outcome="done")
        mark(run, name, "verdict", "verdict", now, outcome=verdict)
        ended[name] = now
        state.update(
            phase="health" if name == fail else "gate" if verdict == "blocked" else "protect",
            verdict=verdict, message=words.one_line(message), remedy=remedy, root=root,
            failure={"type": "unhealthy", "phase": "health"} if name == fail else (
                {"type": "blocked", "phase": "gate"} if verdict == "blocked" else None),
            failed_phase="health" if name == fail else "gate" if verdict == "blocked" else None,
            done=["stage", "stop", *(["start"] if verdict == "verified" else [])],
        )
        files.replace_json(run.file("state", name + ".json"), state)
        run.journal().append("verdict", name, "", {"verdict": verdict})
        if source:
            run.collect(name, ledger(name, source, "stage.verified" if verdict == "blocked" else "restore.live"))
            kind = "redis" if source == "cache" else "postgresql_database"
            run.keep(name, "staged", {
                "measured": _measured(size, phases["stage"]), "usage": _usage(size), "changed": True, "noop": False,
                "sources": {source: {"state": "staged", "bytes": size, "type": kind}},
                "controls": {source: {
                    "snapshot": f"{name}.{source}-000007-1a2b3c4d", "manifest": "ab" * 32, "keys": [{"provider": "vault", "key": f"{name}-data", "version": 3}],
                    "signed_by": {"key": f"{name}-sign", "version": 2}, "locked_until": "2030-03-02T12:00:00Z" if source == "db" else None,
                }},
            })
        if verdict == "verified" or name == fail:
            run.keep(name, "checks", {"results": [
                {"kind": "health", "name": f"http 127.0.0.1/{name}", "ok": name != fail, "detail": "" if name != fail else text, "seconds": 0.012},
                *([{"kind": "invariant", "name": check, "ok": True, "detail": "0", "seconds": 0.044}] if name != fail else []),
            ]})
    if fail:
        for name, errors in (("search", 0), ("mail", 14)):
            run.keep(name, "clients", {"probes": 93, "errors": errors, "p50": 0.004, "p95": 0.021 + errors / 10, "max": 0.3 + errors, "seconds": 94.2})
    mark(run, "", "plan", "sealed", max(ended.values()) + 0.4)
    return run


def render(folder: str, **more: Any) -> str:
    """Make a run and its documents; the path of its report."""
    run = make(folder, **more)
    lifecycle.write_documents(run)
    return run.file("report.html")


if __name__ == "__main__":  # to look at the pages: PYTHONPATH=.dev python tests/doubles/run_sample.py FOLDER
    import sys

    print(render(os.path.join(sys.argv[1], "good")))
    print(render(os.path.join(sys.argv[1], "bad"), fail="orders"))
    print(json.dumps(plan())[:1], end="")
