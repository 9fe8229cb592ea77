# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Whether a gate opens: a decision over the states of other services, without waiting; and how a gate looks at them, which costs next to nothing."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Callable, Iterable, Optional

from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run import words

#: The phase that a service must have finished for the gates that do not wait for verdicts.
_PHASE_OF = {"island_staged": "stage", "dependants_stopped": "stop"}


@dataclass
class Decision:
    """``open``: go on. ``root``: who is to blame when it can never open. Otherwise ``pending`` says what it still waits for."""

    open: bool = False
    root: Optional[dict[str, Any]] = None
    via: str = ""
    pending: list[dict[str, str]] = field(default_factory=list)
    degraded_by: list[str] = field(default_factory=list)
    not_picked: list[str] = field(default_factory=list)


def root_of(service: str, states: dict[str, Optional[dict[str, Any]]]) -> dict[str, Any]:
    """The first cause behind a service that did not succeed: {service, verdict, phase, message}.

    A blocked service already carries its root; following it here covers states that only name their neighbour.
    """
    seen = set()
    current = service
    while current not in seen:
        seen.add(current)
        state = states.get(current) or {}
        root = state.get("root")
        if isinstance(root, dict) and root.get("service") and root["service"] != current:
            if states.get(root["service"]) is None:
                return {
                    "service": str(root["service"]), "verdict": str(root.get("verdict") or "failed"),
                    "phase": str(root.get("phase") or ""), "message": words.one_line(root.get("message") or ""),
                }
            current = str(root["service"])
            continue
        break
    state = states.get(current) or {}
    return {
        "service": current, "verdict": str(state.get("verdict") or "failed"), "phase": str(state.get("failed_phase") or ""),
        "message": words.one_line(state.get("message") or ""), "remedy": words.one_line(state.get("remedy") or ""),
    }


def decide(
    waits: str, services: list[dict[str, str]], states: dict[str, Optional[dict[str, Any]]], open_on: tuple[str, ...] = words.USABLE,
) -> Decision:
    """Look once. ``services``: [{service, kind: hard|soft}]; ``states``: the state of each, None for one that is not in this run.

    requirements: hard ones need a verdict in ``open_on``; soft ones any verdict, and are named in ``degraded_by`` when it is a bad one.
    island_staged and dependants_stopped: each needs that phase done, or a good verdict already (nothing left to do for it).
    Services outside the run are the plan's business: the plan refused, or probed them live.
    """
    result = Decision()
    for item in services:
        name, kind = item["service"], item.get("kind") or "hard"
        state = states.get(name)
        if state is None:
            result.not_picked.append(name)
            continue
        verdict = state.get("verdict")
        if waits == "requirements":
            if verdict in open_on:
                continue
            if verdict and kind == "soft":
                result.degraded_by.append(name)
                continue
        else:
            if verdict in open_on or _PHASE_OF[waits] in (state.get("done") or []):
                continue
        if verdict:
            result.root = result.root or root_of(name, states)
            result.via = result.via or name
        else:
            result.pending.append({"service": name, "kind": kind})
    result.open = result.root is None and not result.pending
    return result


class Watch:
    """The states of some services, each read again only after its file was replaced.

    Many gates look at many files five times a second: with a folder's time of change asked first, a look at which nothing has changed is one call.
    """

    def __init__(self, folder: str, read: Callable[[str], Optional[dict[str, Any]]], names: Iterable[str]) -> None:
        self._folder = folder
        self._read = read
        self._stamps: dict[str, Optional[tuple[int, int, int]]] = dict.fromkeys(names)
        self._states: dict[str, Optional[dict[str, Any]]] = dict.fromkeys(self._stamps)
        self._changed = -1
        self._again = True

    def look(self, names: Iterable[str]) -> dict[str, Optional[dict[str, Any]]]:
        """The states as they are now, as far as ``names`` go; of the others as they were."""
        changed = os.stat(self._folder).st_mtime_ns
        # a second file may have been replaced within the same tick of the clock, after the look that saw the first one
        if changed != self._changed or self._again:
            self._again, self._changed = changed != self._changed, changed
            for name in names:
                try:
                    seen = os.stat(os.path.join(self._folder, name + ".json"))
                except FileNotFoundError:
                    continue
                stamp = (seen.st_ino, seen.st_mtime_ns, seen.st_size)
                if stamp != self._stamps[name]:
                    self._states[name], self._stamps[name] = self._read(name), stamp
        return self._states
