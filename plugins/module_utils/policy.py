# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""What a service says about each step of its restore: how long, how often, and what a failure means.

The catalog has the same table (services.NAME.policy); what an entry does not say has the defaults below.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import Any, Callable, Mapping, TypeVar

from . import limits
from .errors import LifeboatError

T = TypeVar("T")

#: Step -> what it may say, with defaults; 0 seconds is no limit. What cannot be tried again has no retries, what changes no live data no on_error.
STEPS: dict[str, dict[str, Any]] = {
    "stage": {"timeout": 0, "retries": 0, "backoff": 2},
    "stop": {"timeout": 60},
    "cutover": {"timeout": 0, "retries": 0, "backoff": 2, "on_error": "fail"},
    "migrate": {"timeout": 3600, "on_error": "fail"},
    "start": {"timeout": 60, "retries": 0, "backoff": 2, "on_error": "fail"},
    "health": {"timeout": 60, "on_error": "fail"},
    "invariants": {"timeout": 60, "retries": 0, "backoff": 2, "on_error": "fail"},
}
#: fail: the service stays as it is, for people to look at. rollback: it goes back into its former data at once.
ON_ERROR = ("fail", "rollback")
#: A pause between two tries is never longer, however many there were.
LONGEST_PAUSE = 300.0


@dataclass(frozen=True)
class Step:
    """timeout, backoff: seconds (0: no limit). retries: how many more tries after the first."""

    name: str
    timeout: float
    retries: int = 0
    backoff: float = 2.0
    on_error: str = "fail"

    def pause(self, tries: int) -> float:
        """Seconds before the next try after so many: twice as long each time, and spread, so that many services do not come back in step."""
        return min(LONGEST_PAUSE, self.backoff * 2.0 ** min(tries - 1, 20)) * random.uniform(0.5, 1.0)


def of(entry: Mapping[str, Any], step: str) -> Step:
    """What an entry says about a step. Raises ConfigError for what is no duration."""
    from .checks.expect import seconds

    said = {**STEPS[step], **((entry.get("policy") or {}).get(step) or {})}
    return Step(step, seconds(said["timeout"]), int(said.get("retries") or 0), seconds(said.get("backoff")), str(said.get("on_error") or "fail"))


def attempts(step: Step, service: str, work: Callable[[], T], note: Callable[[int, float, LifeboatError], None],
             sleep: Callable[[float], None] = time.sleep) -> T:
    """The result of ``work``, each try within the step's time. What may pass by itself is tried again, anything else is raised at once.

    note(tries so far, seconds of pause, error) is called before each pause.
    """
    tries = 0
    while True:
        tries += 1
        try:
            with limits.within(step.timeout, step.name, service):
                return work()
        except LifeboatError as error:
            if not error.transient or tries > step.retries:
                raise
            pause = step.pause(tries)
            note(tries, pause, error)
        sleep(pause)
