# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The closed taxonomy of failures: what kind of thing went wrong, told by an error's code, its cause and the phase, never by its words."""

from __future__ import annotations

from typing import Any, Mapping

#: Every type there is, with what it means for people.
TYPES: dict[str, str] = {
    "data_damaged": "a snapshot, or a copy made of it, is not what was captured",
    "key_unavailable": "a key is missing, wrong, or may not be used",
    "repository_unreachable": "the repository does not answer",
    "storage_failed": "a disk or store refused for another reason than room and rights",
    "host_unreachable": "the host of the service does not answer",
    "no_space": "a disk is full",
    "permission": "a file, store or object may not be used",
    "conflict": "somebody else works on it",
    "config": "the catalog or the call is wrong",
    "target_unavailable": "the point asked for does not exist or cannot be reached",
    "source_failed": "the data store refused or is down",
    "start_failed": "the service did not start",
    "stop_failed": "the service did not stop",
    "unhealthy": "a health check did not pass",
    "invariant_broken": "an invariant did not hold",
    "unprotected": "the next capture would not work",
    "timeout": "it did not end within its time",
    "interrupted": "the run lost its controller or was stopped by hand",
    "blocked": "another service of the run failed",
    "internal": "an error that nothing else is known of",
}

#: Causes (LifeboatError.cause) that say more than any code does.
CAUSES = {
    "no_space": "no_space", "permission": "permission", "unreachable": "repository_unreachable", "host": "host_unreachable", "timeout": "timeout",
}

#: Every code of an error class; "" where the phase decides.
CODES = {
    "config": "config", "damage": "data_damaged", "key": "key_unavailable", "storage": "storage_failed", "conflict": "conflict",
    "target": "target_unavailable", "limit": "timeout", "source": "", "check": "", "error": "",
}

#: What a data store's refusal, or a failure that is no error of ours, is in a phase.
_ACTING = {"start": "start_failed", "stop": "stop_failed"}
#: What a check that did not pass is in a phase; anywhere else it compared content.
_CHECKING = {"start": "unhealthy", "health": "unhealthy", "invariants": "invariant_broken", "protect": "unprotected"}


def classify(code: str, phase: str, cause: str = "") -> str:
    """The type of an error with this code and cause in this phase."""
    if cause in CAUSES:
        return CAUSES[cause]
    if code == "check":
        return _CHECKING.get(phase, "data_damaged")
    if code == "source":
        return _ACTING.get(phase, "source_failed")
    return CODES.get(code) or _ACTING.get(phase, "internal")


def of_answer(answer: Mapping[str, Any], phase: str) -> str:
    """The type of a module's failed answer: unreachable, out of time, one of our errors, or anything else."""
    if answer.get("unreachable"):
        return "host_unreachable"
    if answer.get("timedout"):
        return "timeout"
    error = answer.get("error")
    if isinstance(error, Mapping):
        return classify(str(error.get("code") or ""), phase, str(error.get("reason") or ""))
    return classify("", phase)


def without_error(phase: str) -> str:
    """The type of a failure that left no error behind: a command of the service's own, or others that kept it from going on."""
    if phase in _ACTING:
        return _ACTING[phase]
    return {"health": "unhealthy", "invariants": "invariant_broken", "preflight": "blocked", "plan": "blocked"}.get(phase, "internal")
