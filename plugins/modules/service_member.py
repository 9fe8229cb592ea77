#!/usr/bin/python
# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: service_member
short_description: Ask, stop, reseed or put back one server of a replicated PostgreSQL cluster
version_added: 0.1.0
description:
  - Works on one member of the cluster that a service's C(postgresql) source declares with C(members); delegate it to the member's host.
  - O(state=streaming) makes it a standby of O(primary), from the newest snapshot on the primary's own way. Pages that the host still has are taken
    from there; the log behind the snapshot comes from the repository as far as it leads, and from the primary's slot from there on. It has succeeded
    when the standby streams by its slot, on the primary's timeline, and has replayed what the primary had written when it was asked.
  - What was in place is kept aside until O(state=committed), and put back by O(state=returned).
extends_documentation_fragment:
  - lifeboat.recovery.service
  - lifeboat.recovery.service.changes
options:
  member:
    description:
      - The member, by the name of its inventory host as the catalog gives it.
    type: str
    required: true
  primary:
    description:
      - The member that is the primary.
      - Required for O(state=streaming) and O(state=returned).
    type: str
  state:
    description:
      - V(asked) only asks what it is right now. One that cannot be asked has no C(role), and C(error) says why; that is no failure.
      - V(stopped) stops its server.
      - V(streaming) makes it a standby. One that is one already is left alone. A server that takes writes is refused.
      - V(returned) puts back what a reseed displaced and proves that it follows its primary again, or fails.
      - V(committed) deletes what a reseed displaced.
    type: str
    choices: [asked, stopped, streaming, returned, committed]
    default: asked
  force:
    description:
      - Reseed a standby that streams, too.
    type: bool
    default: false
  rollback_run:
    description:
      - The run that reseeded it, for O(state=returned) and O(state=committed).
    type: str
"""

EXAMPLES = r"""
- name: Build the lost standby anew
  lifeboat.recovery.service_member:
    service: "{{ lifeboat_service }}"
    entry: "{{ lifeboat_entry }}"
    repository: "{{ lifeboat_repository }}"
    keys: "{{ lifeboat_keys }}"
    member: db2
    primary: db1
    state: streaming
  delegate_to: db2
"""

RETURN = r"""
host:
  description: The member.
  type: str
  returned: for O(state=asked)
role:
  description: C(primary), C(standby) or C(down); null when it could not be asked.
  type: str
  returned: for O(state=asked)
system_identifier:
  description: Of the cluster.
  type: str
  returned: for O(state=asked)
timeline:
  description: The timeline it is on.
  type: int
  returned: for O(state=asked)
position:
  description: How far it has written, or replayed.
  type: str
  returned: for O(state=asked)
standbys:
  description: Who streams from it, per slot C(slot), C(state), C(replay), C(name) and C(log).
  type: list
  elements: dict
  returned: for O(state=asked)
snapshot:
  description: The snapshot it was built from.
  type: str
  returned: for O(state=streaming)
bytes_reused:
  description: Bytes that the host still had.
  type: int
  returned: for O(state=streaming), when it was reseeded
bytes_fetched:
  description: Bytes that came from the repository.
  type: int
  returned: for O(state=streaming), when it was reseeded
proof:
  description: What shows that it follows, C(system_identifier), C(timeline), C(slot), C(position) of the primary and how far it has C(replayed).
  type: dict
  returned: for O(state=streaming) and O(state=returned)
freed:
  description: Bytes freed.
  type: int
  returned: for O(state=committed)
ledger:
  description: The entries this call wrote to the ledger of the member on its host, hash-chained.
  type: list
  elements: dict
  returned: success
run:
  description: The id of the run.
  type: str
  returned: success
error:
  description: What went wrong, C(code), C(what), C(where) and C(remedy); for O(state=asked) a text.
  type: raw
  returned: failure
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lifeboat.recovery.plugins.module_utils import arguments


def main():
    module = arguments.quiet(AnsibleModule)(
        argument_spec=dict(
            arguments.COMMON,
            member={"type": "str", "required": True},
            primary={"type": "str"},
            state={"type": "str", "choices": ["asked", "stopped", "streaming", "returned", "committed"], "default": "asked"},
            force={"type": "bool", "default": False},
            rollback_run={"type": "str"},
        ),
        required_if=[("state", "streaming", ["primary"]), ("state", "returned", ["primary", "rollback_run"]), ("state", "committed", ["rollback_run"])],
        supports_check_mode=True,
    )
    arguments.perform(module, "reseed", work)


def work(spec, run, params, check):
    from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import members

    return members.set_state(spec, run, params, check)


if __name__ == "__main__":
    main()
