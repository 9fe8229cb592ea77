# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Which restore a rollback or commit is about, and which services took part in it, as their hosts remember it."""

from __future__ import annotations

from typing import Any, Mapping, Sequence

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import TargetError

from ..catalog.graph import Services, reachable, requirements

#: Verdicts of a service that a restore left running.
_WELL = ("verified", "restored", "degraded")
#: States of a source whose live data the restore has replaced or begun to replace.
_CUT = ("live", "swapping", "committed", "rolled_back", "rolling_back")


def restores_of(answer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The restores of a service that replaced live data, oldest first."""
    found = answer.get("restores") or []
    return [restore for restore in found if any(source.get("state") in _CUT for source in (restore.get("sources") or {}).values())]


def _left_behind(restore: Mapping[str, Any]) -> bool:
    """Whether a restore stopped its service and never got it up again: blocked, failed or interrupted before its cutover."""
    return not restore.get("abandoned") and restore.get("verdict") not in _WELL


def narrow(services: Services, picked: Sequence[str], answers: Mapping[str, Mapping[str, Any]], which: str, verb: str,
           explicit: bool) -> tuple[list[str], str, dict[str, str]]:
    """(services that the verb is about, the run, the run to name to the host of each). Raises TargetError when there is nothing to do.

    ``last`` without named services is the newest restore that any host remembers, with all who took part; in a rollback also those that it
    stopped and then blocked. Services without data of their own have no restore on record; they belong to a rollback when they build on one that does.
    Of named services each has its own last one, and "" where it took no part in the run that was named: that was over before it came to the service.
    """
    if explicit:
        return list(picked), which, _last(picked, answers, verb) if which == "last" else _named(services, picked, answers, which)
    run = which
    if which == "last":
        newest = max(
            ((str(restore.get("time") or ""), str((restore.get("runs") or [restore.get("restore")])[-1])) for service in picked
             for restore in restores_of(answers.get(service) or {})), default=None,
        )
        if newest is None:
            raise TargetError(f"nothing to {'roll back' if verb == 'rollback' else verb}", "no host remembers a restore that replaced live data",
                              "the status playbook shows what each service holds")
        run = newest[1]
    part = [service for service in picked if any(run in (restore.get("runs") or []) for restore in restores_of(answers.get(service) or {}))]
    if not part:
        raise _unknown(picked, answers, run)
    if verb == "rollback":
        stopped = [service for service in picked if service not in part and any(
            run in (restore.get("runs") or []) and _left_behind(restore) for restore in (answers.get(service) or {}).get("restores") or [])]
        part += stopped
        edges = {service: requirements(services, service) for service in services}
        part += [service for service in picked if not services[service].get("sources") and reachable(edges, [service]).intersection(part)]
    return [service for service in picked if service in part], run, dict.fromkeys(part, run)


def _last(picked: Sequence[str], answers: Mapping[str, Mapping[str, Any]], verb: str) -> dict[str, str]:
    """The last restore of each service. One that only stopped it counts as well for a rollback, where it replaced the data of another of them: to go
    further back here would undo two restores."""
    replaced = {run for service in picked for restore in restores_of(answers.get(service) or {}) for run in restore.get("runs") or []}
    found = {}
    for service in picked:
        cut = restores_of(answers.get(service) or {})
        for restore in (answers.get(service) or {}).get("restores") or []:
            if restore in cut or verb == "rollback" and _left_behind(restore) and replaced.intersection(restore.get("runs") or []):
                found[service] = str((restore.get("runs") or [restore.get("restore")])[-1])
    return {service: found.get(service, "last") for service in picked}


def _named(services: Services, picked: Sequence[str], answers: Mapping[str, Mapping[str, Any]], run: str) -> dict[str, str]:
    """The run, but "" where the host remembers the time before it, and nothing of it. One that remembers less may have forgotten: it is asked, and refuses."""
    with_data = [service for service in picked if services[service].get("sources")]
    began = {service: next((str(one.get("time")) for one in (answers.get(service) or {}).get("restores") or [] if run in (one.get("runs") or [])), "")
             for service in with_data}
    known = [time for time in began.values() if time]
    if with_data and not known:
        raise _unknown(picked, answers, run)
    # of a cluster with members another host may remember
    asked = [service for service in with_data if not began[service] and not services[service].get("members")]
    no_part = [service for service in asked if "" < str((answers.get(service) or {}).get("since") or "") < min(known)]
    return {service: "" if service in no_part else run for service in picked}


def _unknown(picked: Sequence[str], answers: Mapping[str, Mapping[str, Any]], run: str) -> TargetError:
    known = sorted({str(name) for service in picked for restore in restores_of(answers.get(service) or {}) for name in restore.get("runs") or []})
    return TargetError("no host remembers a restore of that run", run, f"known runs: {', '.join(known[-5:]) or 'none'}")
