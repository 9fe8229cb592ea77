# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""What stops a run before anything is touched: everything at once, each with its remedy; and who is left out of a partial run."""

from __future__ import annotations

from typing import Any, Iterable, Mapping, Sequence

from ansible_collections.lifeboat.recovery.plugins.module_utils import lease
from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConfigError, LifeboatError
from ansible_collections.lifeboat.recovery.plugins.module_utils.failures import classify

from ..catalog.graph import HARD, Services, dependants, requirements
from ..run import causes
from .order import topological_order
from .pick import DEPENDANTS, refuse_dependants

#: Verbs that change live data, or what opens its snapshots.
CHANGING = ("restore", "rollback", "commit", "extract", "rotate_keys", "reseed")
#: Verbs that stop and start services, so that others notice.
STOPPING = ("restore", "rollback")


def outside(services: Services, picked: Sequence[str], dependants_found: Mapping[str, Sequence[str]], verb: str) -> list[dict[str, str]]:
    """Services outside the pick that must be asked whether they are live: [{"service", "role", "phase"}], each once.

    A hard requirement that was not picked must be healthy; of a dependant it is enough to know whether it runs.
    """
    inside = set(picked)
    needed = {need for service in picked for need in requirements(services, service, HARD)} - inside
    found = [{"service": service, "role": "requirement", "phase": "health"} for service in topological_order(services, needed)] if verb == "restore" else []
    if verb in STOPPING:
        found += [{"service": service, "role": "dependant", "phase": "status"} for service in dependants_found if service not in needed]
    return found


def confirm(document: Mapping[str, Any], verb: str, given: str, check: bool) -> list[LifeboatError]:
    """A production ecosystem is changed only when its name was given."""
    if not document["production"] or verb not in CHANGING or check or given == document["ecosystem"]:
        return []
    return [ConfigError(
        f"{document['ecosystem']} is marked production", f"lifeboat_confirm={given}" if given else "lifeboat_confirm is not given",
        f"add -e lifeboat_confirm={document['ecosystem']} when you mean it",
    )]


def one_service(picked: Sequence[str], verb: str) -> list[LifeboatError]:
    """An extraction is about one service: names of databases and tables mean something there only."""
    if verb != "extract" or len(picked) == 1:
        return []
    return [ConfigError(f"extract is for one service, {len(picked)} are picked", ", ".join(picked[:10]), "pick it: -e lifeboat_services=NAME")]


def unreachable_or_failed(answers: Mapping[str, Mapping[str, Any]]) -> dict[str, LifeboatError]:
    """service -> why nothing is known of it: its host does not answer, or what it answered was an error."""
    found: dict[str, LifeboatError] = {}
    for service, answer in answers.items():
        if answer.get("unreachable"):
            found[service] = LifeboatError("its host does not answer", f"service {service}", str(answer.get("msg", "check the connection")).strip(), "host")
        elif answer.get("failed") or "restores" not in answer:
            found[service] = error_of(service, answer)
    return found


def error_of(service: str, answer: Mapping[str, Any]) -> LifeboatError:
    """The error a module reported, or its message."""
    error = answer.get("error")
    if isinstance(error, Mapping) and error.get("what"):
        found = LifeboatError(
            str(error["what"]), f"{service}: {error.get('where') or 'its host'}", str(error.get("remedy") or ""), str(error.get("reason") or ""),
        )
        found.code = str(error.get("code") or found.code)
        return found
    return LifeboatError(" ".join(str(answer.get("msg") or "the host gave no answer").split()), f"service {service}", "run it again with -vvv")


def told_once(broken: Mapping[str, LifeboatError]) -> list[LifeboatError]:
    """The same errors, those of several services that have one cause as one."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for service, error in broken.items():
        groups.setdefault((error.what, place_of(service, error), error.remedy), []).append(service)
    return [
        broken[names[0]] if len(names) == 1 else LifeboatError(what, f"{causes.names(names)}: {place}" if place else causes.names(names), remedy)
        for (what, place, remedy), names in groups.items()
    ]


def place_of(service: str, error: LifeboatError) -> str:
    """Where an error is, without the name of its service."""
    return error.where.removeprefix(f"{service}: ") if error.where != f"service {service}" else ""


def gone(answers: Mapping[str, Mapping[str, Any]], pid: int) -> list[str]:
    """Runs that hold services and whose process on this very controller is gone, or is ours (``pid``): a host elsewhere cannot know that."""
    held = [dict(answer.get("lease") or {}) for answer in answers.values()]
    return sorted({str(one["run"]) for one in held if one.get("run") and lease.gone(one, pid)})


def leases(answers: Mapping[str, Mapping[str, Any]], ended: Iterable[str]) -> dict[str, LifeboatError]:
    """Services that somebody else works on right now: who, since when, in which phase. ended: as gone() tells."""
    found: dict[str, LifeboatError] = {}
    for service, answer in answers.items():
        held = answer.get("lease") or {}
        if held.get("alive") and held.get("run") not in set(ended):
            found[service] = ConfigError(
                f"{service} is in use by {held.get('user') or 'somebody'} on {held.get('controller') or 'an unknown controller'} since {held.get('since')}",
                f"run {held.get('run')}, phase {held.get('phase')}",
                f"wait for it to end, or ask its operator; should that controller be lost, its hold ends {lease.RENEWED_SECONDS:.0f} s after its last step",
            )
    return found


def live_outside(probes: Sequence[Mapping[str, Any]], chains: Mapping[str, Sequence[str]], choice: str, verb: str, inventory: str) -> tuple[
        list[LifeboatError], list[str]]:
    """(errors, live dependants) from the answers of the services outside the pick: [{"service", "role", "answer"}]."""
    errors: list[LifeboatError] = []
    live: dict[str, Sequence[str]] = {}
    if choice not in DEPENDANTS:
        errors.append(ConfigError(f"unknown choice {choice!r}", "lifeboat_dependants", "use stop or ignore"))
        choice = "ignore"
    for probe in probes:
        service, answer = str(probe["service"]), probe["answer"]
        ok = bool(answer.get("ok")) and not answer.get("unreachable")
        if probe["role"] == "requirement" and not ok:
            why = next((str(row.get("detail")) for row in answer.get("results") or [] if not row.get("ok")), str(answer.get("msg") or "no answer"))
            errors.append(ConfigError(
                f"{service} is required, was not picked, and is not healthy", " ".join(why.split()),
                f"pick {service} too (lifeboat_scope=requirements), or mend it first",
            ))
        if service in chains and (answer.get("unreachable") or _runs(answer)):
            live[service] = chains[service]
    try:
        refuse_dependants(live, choice, verb, inventory)
    except ConfigError as error:
        errors.append(error)
    return errors, list(live)


def _runs(answer: Mapping[str, Any]) -> bool:
    """Does a service run? Healthy means yes; so does a passed status. One that declares neither is taken for running: that is the safe answer."""
    # a database that answers says nothing of the program that uses it
    results = [row for row in answer.get("results") or [] if row.get("kind") in ("status", "health")]
    status = [row for row in results if row.get("kind") == "status"]
    if status:
        return all(row.get("ok") for row in status)
    if results:
        return any(row.get("ok") for row in results)
    return not answer.get("failed")


def left_out(services: Services, picked: Sequence[str], broken: Mapping[str, LifeboatError], phase: str) -> dict[str, dict[str, Any]]:
    """The verdicts of a partial run before it begins: ``failed`` for what is broken, ``blocked`` for what needs it by hard requirements."""
    result: dict[str, dict[str, Any]] = {}
    for service, error in broken.items():
        root = {"service": service, "verdict": "failed", "phase": phase, "message": str(error)}
        result[service] = {
            "verdict": "failed", "message": f"{error.what}: {error.where}" if error.where else error.what, "remedy": error.remedy, "root": root,
            "failure": classify(error.code, "preflight", error.cause),
        }
    followers = dependants(services, HARD)
    pending = list(broken)
    roots = {service: service for service in broken}
    while pending:
        current = pending.pop()
        for follower in followers[current]:
            if follower in roots:
                continue
            roots[follower] = roots[current]
            pending.append(follower)
            if follower in picked:
                root = result[roots[current]]["root"]
                result[follower] = {
                    "verdict": "blocked", "message": f"blocked by {root['service']} (failed in phase {phase}): {root['message']}",
                    "remedy": f"mend {root['service']}, then run the same command again", "root": root,
                }
    return {service: result[service] for service in picked if service in result}
