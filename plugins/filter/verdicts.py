# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: verdicts
short_description: What a run comes to, from the verdicts of its services
version_added: "0.1.0"
author:
  - Lifeboat contributors (@lifeboat)
description:
  - The list of verdicts is closed, V(verified), V(restored), V(degraded), V(captured), V(committed), V(rolled_back), V(blocked),
    V(interrupted), V(skipped) and V(failed). Any other word counts as V(failed).
  - A run succeeds only if every picked service has a verdict in the success set of the verb, and there is at least one. The sets are
    V(verified) and V(restored) for restore and drill, V(captured) for backup, V(committed) for commit, V(rolled_back) for rollback and
    V(verified) for verify.
positional: _input, verb
options:
  _input:
    description: Service name to verdict, or to a mapping with a key C(verdict).
    type: dict
    required: true
  verb:
    description: What the run was to do.
    type: str
    required: true
    choices: [restore, drill, backup, commit, rollback, verify]
  picked:
    description:
      - The services that the run answers for. One without a verdict counts as V(failed), and a verdict of a service that is not among
        them fails the run. The services of the input when left out.
    type: list
    elements: str
"""

EXAMPLES = r"""
- name: Fail unless everything that was picked is restored and proven
  ansible.builtin.assert:
    that: outcome.ok
    fail_msg: "{{ outcome.message }}"
  vars:
    outcome: "{{ {'orders': 'verified', 'payments': 'blocked'} | lifeboat.recovery.verdicts('restore', picked=['orders', 'payments']) }}"
    # => outcome.message: "restore: 1 of 2 succeeded; blocked: payments"
"""

RETURN = r"""
_value:
  description: The outcome.
  type: dict
  contains:
    ok:
      description: Whether every picked service succeeded.
      type: bool
    exit:
      description: 0 when all succeeded, 2 when all succeeded but some are degraded, 3 otherwise.
      type: int
    picked:
      description: How many services the run answers for.
      type: int
    succeeded:
      description: How many of them succeeded.
      type: int
    counts:
      description: Verdict to number of services.
      type: dict
    by_verdict:
      description: Verdict to names of services.
      type: dict
    verdicts:
      description: Service to verdict, words outside the list replaced by V(failed).
      type: dict
    missing:
      description: Picked services without any verdict.
      type: list
      elements: str
    strangers:
      description: Services with a verdict that were not picked.
      type: list
      elements: str
    message:
      description: All of it in one line.
      type: str
"""

from typing import Any, Callable

from ansible_collections.lifeboat.recovery.plugins.plugin_utils.plan import outcome
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.plan.filtering import filtered, mapping_in
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.plan.pick import names_of


@filtered
def verdicts(states: Any, verb: str, picked: Any = None) -> dict[str, Any]:
    """See DOCUMENTATION."""
    return outcome.outcome(mapping_in(states, "verdicts"), verb, None if picked is None else names_of(picked))


class FilterModule:
    """Ansible filters."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"verdicts": verdicts}
