# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: recovery_candidates
short_description: The recovery points of a service, newest first, with what choosing each one loses
version_added: "0.1.0"
author:
  - Lifeboat contributors (@lifeboat)
description:
  - Sorts points by sequence number, because clocks lie, and says for each whether it can be restored, how old it is and what it loses
    compared with the newest complete one.
positional: _input, now
options:
  _input:
    description: Points as RV(lifeboat.recovery.snapshot_info#module:points) of the snapshot_info module gives them, oldest first.
    type: list
    elements: dict
    required: true
  now:
    description: The time that ages are counted to, ISO 8601 with a zone. The current time when left out.
    type: str
  usable:
    description: Keep only points that can be restored.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: What could be restored
  ansible.builtin.debug:
    msg: "{{ snapshots.points | lifeboat.recovery.recovery_candidates(usable=true) | map(attribute='id') }}"

- name: Loss of the second newest
  ansible.builtin.debug:
    msg: "{{ (snapshots.points | lifeboat.recovery.recovery_candidates(usable=true))[1].lost_seconds }}"
"""

RETURN = r"""
_value:
  description:
    - The points, newest first, each with three more keys.
    - C(usable) is whether the point is complete. C(age_seconds) is counted to O(now). C(lost_seconds) is counted to the newest complete
      point, and null for a point that is not usable.
  type: list
  elements: dict
"""

from datetime import datetime, timezone
from typing import Any, Callable

from ansible_collections.lifeboat.recovery.plugins.plugin_utils.plan import target
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.plan.filtering import filtered, points_in, time_of


@filtered
def recovery_candidates(points: Any, now: Any = None, usable: bool = False) -> list[dict[str, Any]]:
    """See DOCUMENTATION."""
    found = target.candidates(points_in(points), time_of(now) if now else datetime.now(timezone.utc))
    return [point for point in found if point["usable"]] if usable else found


class FilterModule:
    """Ansible filters."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"recovery_candidates": recovery_candidates}
