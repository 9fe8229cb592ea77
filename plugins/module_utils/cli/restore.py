# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""``lifeboat restore``, ``rollback`` and ``commit``: the verbs of the playbooks for one service, on its host."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from .. import control, lease
from ..errors import ConfigError, LifeboatError
from ..failures import classify
from ..log import status as log_status
from ..meter import combined
from ..pipeline import operations
from ..pipeline import restore as machine
from ..spec import Spec
from .shared import answer, load


def say(text: str) -> None:
    """One line for people, now."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def warn(warnings: list[Any]) -> None:
    """Errors that did not keep it from going on."""
    for warning in warnings:
        say("  warning: " + (f"{warning['what']}: {warning['where']}; {warning['remedy']}" if isinstance(warning, dict) else str(warning)))


def restore(options: argparse.Namespace) -> int:
    """Preflight, stage, stop, cutover, start, checks, verdict. 3: live, but not verified."""
    spec = load(options, options.service)
    if not options.check:
        confirm(spec, options)
    run = lease.new_run("restore")
    say(f"run {run['id']}: preflight of {spec.service} to {options.target}")
    found = machine.preflight(spec, options.target, run, "exists", options.force, ("new_host",) if options.new_host else ())
    for finding in found["findings"]:
        say(f"  {finding['level']}: {finding['what']}: {finding['where']}; {finding['remedy']}")
    warn(found["warnings"])
    point = (found["point"] or {}).get("id")
    if not found["ok"]:
        say("nothing was changed")
        if options.json:
            answer(options, found, "")
        return 1
    if options.check:
        change = f"would restore point {point}" if found["changed"] else "would change nothing: the data is the target already"
        answer(options, found, f"{spec.service}: preflight passed; {change}")
        return 0
    runtime = _runtime(spec, options)
    took: dict[str, Any] = {"phase": "stage", "calls": []}
    try:
        return _restore(options, spec, run, runtime, took)
    except LifeboatError as error:
        known = operations.known(spec)
        mine = [one for one in known["restores"] if run["id"] in one["runs"]]
        for name, source in (mine[-1]["sources"] if mine else {}).items():
            say(f"  {name}: {source['state']}")
        took["calls"].append(error.result.get("measured") or {})
        failure = {"type": classify(error.code, took["phase"], error.cause), "phase": took["phase"]}
        machine.mark_verified(spec, run, "failed", str(error), {**combined(took["calls"]), "failure": failure})
        say(f"next: mend it and run the same command again, or: lifeboat rollback {spec.service}")
        raise


def _restore(options: argparse.Namespace, spec: Spec, run: dict[str, Any], runtime: dict[str, Any], took: dict[str, Any]) -> int:
    """``took`` is kept up to date for whoever notes a failure: {"phase", "calls": what they measured}."""
    told = operations.set_state(spec, run, "staged", options.target, "last", {"force": options.force}, False)
    warn(told["warnings"])
    took["calls"].append(told["measured"])
    point = (told["point"] or {}).get("id") or "no data"
    if told["noop"]:
        warn(machine.mark_verified(spec, run, _verdict(spec), measured={**combined(took["calls"]), "recovery": {"noop": True}})["warnings"])
        answer(options, {**told, "verdict": _verdict(spec)}, f"{spec.service}: is {point} already and well; nothing was changed")
        return 0
    say(f"staged and verified: {point}")
    for name, source in told["sources"].items():
        ended = (source.get("facts") or {}).get("reached")
        if ended:
            say(f"  {name}: recovery ended at {ended['position']} of timeline {ended['from_timeline']}, last commit {ended.get('last_commit') or 'unknown'}")
    if options.until == "staged":
        answer(options, told, f"{spec.service}: staged beside the live data; the same command without --until goes on")
        return 0
    took["phase"] = "stop"
    _run(spec, runtime, "stop")
    took["phase"] = "cutover"
    told = operations.set_state(spec, run, "live", options.target, "last", {"force": options.force}, False)
    warn(told["warnings"])
    took["calls"].append(told["measured"])
    say(f"live: {point}")
    if options.until == "cutover":
        answer(options, told, f"{spec.service}: {point} is live; start the service, check it, then: lifeboat commit {spec.service}")
        return 0
    took["phase"] = "start"
    _run(spec, runtime, "start")
    took["phase"] = "health"
    checked = operations.check(spec, "all", None, warm=True)
    warn(checked["warnings"])
    for result in checked["results"]:
        say(f"  {'ok  ' if result['ok'] else 'FAIL'} {result['kind']} {result['name']}: {result['detail']} ({result['seconds']} s)")
    verdict = _verdict(spec) if checked["ok"] else "failed"
    broken = next((result["kind"] for result in checked["results"] if not result["ok"]), "")
    failure = {"type": "invariant_broken" if broken == "invariant" else "unhealthy", "phase": "invariants" if broken == "invariant" else "health"}
    warn(machine.mark_verified(spec, run, verdict, measured={**combined(took["calls"]), "failure": failure if broken else None})["warnings"])
    unshipped = log_status.all_unshipped(spec) if checked["ok"] else []
    warn(unshipped)
    steps = f"undo: lifeboat rollback {spec.service}\nkeep: lifeboat commit {spec.service} (deletes the former data)\nprotect: take a new backup"
    answer(options, {**told, "verdict": verdict, "checks": checked["results"], "unshipped": unshipped}, f"{spec.service}: {verdict}, {point} is live\n{steps}")
    return 0 if checked["ok"] else 3


def _verdict(spec: Spec) -> str:
    return "verified" if spec.entry.get("invariants") else "restored"  # healthy, but nothing was proven about its content


def rollback(options: argparse.Namespace) -> int:
    """Stop, put the former data back, start."""
    spec = load(options, options.service)
    run = lease.new_run("rollback")
    if options.check:
        told = operations.set_state(spec, run, "rolled_back", "", options.run, {}, True)
        answer(options, told, f"{spec.service}: {'would be rolled back' if told['changed'] else 'nothing to do'}")
        return 0
    confirm(spec, options)
    runtime = _runtime(spec, options)
    machine.predict(spec, run, "rollback", options.run)  # a refusal comes before the service is stopped
    _run(spec, runtime, "stop")
    told = operations.set_state(spec, run, "rolled_back", "", options.run, {}, False)
    warn(told["warnings"])
    _run(spec, runtime, "start")
    lines = [f"{spec.service}: {'rolled back' if told['changed'] else 'was rolled back already'}"]
    for name, writes in told["writes"].items():
        if not writes["known"]:
            lines.append(f"  {name}: what was written since cutover is not known ({writes['reason']}); the restored copy is set aside")
        elif writes["written"]:
            lines.append(f"  {name}: written since cutover and set aside: {'; '.join(writes['differences'])}")
        else:
            lines.append(f"  {name}: nothing was written since cutover")
    answer(options, told, "\n".join(lines))
    return 0


def commit(options: argparse.Namespace) -> int:
    """Delete what is kept for a rollback."""
    spec = load(options, options.service)
    if not options.check:
        confirm(spec, options)
    told = operations.set_state(spec, lease.new_run("commit"), "committed", "", options.run, {}, options.check)
    warn(told["warnings"])
    word = "would be committed" if options.check else "committed"
    answer(options, told, f"{spec.service}: {word if told['changed'] else 'was committed already'}")
    return 0


def confirm(spec: Spec, options: argparse.Namespace) -> None:
    """Refuse where the catalog marks production and its name was not given."""
    document = spec.catalog.get("document") or {}
    production = bool(document.get("production") or spec.catalog.get("production"))
    ecosystem = str(spec.catalog.get("ecosystem") or "")
    if production and options.confirm != ecosystem:
        raise ConfigError("the catalog marks this ecosystem as production", ecosystem, f"add --confirm {ecosystem}")


def _runtime(spec: Spec, options: argparse.Namespace) -> dict[str, Any]:
    """The runtime's commands, refused before anything is changed when this command cannot perform them."""
    runtime = {} if options.no_runtime else dict(spec.entry.get("runtime") or {})
    control.refuse_tasks(spec.service, {"runtime": runtime})
    return runtime


def _run(spec: Spec, runtime: dict[str, Any], word: str) -> None:
    entry = {**spec.entry, "runtime": runtime}
    if word == "start":
        control.start(spec.service, entry)
    else:
        control.stop(spec.service, entry)
