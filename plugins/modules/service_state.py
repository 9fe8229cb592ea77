#!/usr/bin/python
# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: service_state
short_description: Tell what the host knows of a service, and record a run's verdict
version_added: 0.1.0
description:
  - Tells who works on the service, which run is unfinished, which restores are not committed and the disk they hold, what the live data
    comes from, and the last proof. Needs neither repository nor keys.
  - With O(verdict) it records the outcome of the service in the run, and the run's lease on the service ends.
    With a run directory in O(run) the service gets the verdict there too, as soon as its host has it; a verdict that it has already stands.
extends_documentation_fragment:
  - lifeboat.recovery.service
  - lifeboat.recovery.service.changes
attributes:
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: none
options:
  verdict:
    description:
      - The outcome to record. Nothing is recorded in check mode. Recording a verdict does not count as a change of the service.
    type: str
    choices: [verified, restored, degraded, captured, committed, rolled_back, blocked, interrupted, skipped, failed]
  text:
    description:
      - Why, in one line.
    type: str
    default: ""
  measured:
    description:
      - What the run measured on the service, for the ledger's entry C(measured); with O(verdict).
      - With a run directory in O(run) it is filled in from there.
    type: dict
  history:
    description:
      - Also return the runs on record, from the copy of the ledger in the repository and from the ledger on the host.
      - What only one of them tells is told; a repository that does not answer is a note.
    type: bool
    default: false
  ledger_run:
    description:
      - Also return the ledger entries of this run, V(last) for the newest one.
    type: str
    default: ""
  points:
    description:
      - Also return the recovery points of the service. This needs the repository, and the keys of a capture.
    type: bool
    default: false
  fail:
    description:
      - Whether the call fails when it cannot tell. With V(false) it only returns RV(error), for who asks many services and tells a common cause once.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Who works on orders
  lifeboat.recovery.service_state:
    service: "{{ lifeboat_service }}"
    entry: "{{ lifeboat_entry }}"
    repository: "{{ lifeboat_repository }}"
    keys: "{{ lifeboat_keys }}"

- name: Orders is well again
  lifeboat.recovery.service_state:
    service: "{{ lifeboat_service }}"
    entry: "{{ lifeboat_entry }}"
    repository: "{{ lifeboat_repository }}"
    keys: "{{ lifeboat_keys }}"
    run: "{{ lifeboat_run }}"
    verdict: verified
"""

RETURN = r"""
lease:
  description: Who works on the service, with C(run), C(verb), C(user), C(controller), C(pid), C(since), C(phase), C(alive) and C(why).
  type: dict
  returned: success
unfinished:
  description: The newest run when it never ended, C(run), C(verb) and C(since).
  type: dict
  returned: success
restores:
  description: The restores on record, newest last, with C(holds), C(held) and C(held_bytes) for what is kept until commit.
  type: list
  elements: dict
  returned: success
since:
  description: The time from which on RV(restores) has every one; empty where the host remembers nothing of the service.
  type: str
  returned: success
attempts:
  description: The newest runs that bring data back or settle it, C(run), C(verb), C(began), C(ended) and C(verdict).
  type: list
  elements: dict
  returned: success
runs:
  description: The runs on record, oldest first, with C(run), C(verb), C(verdict), C(began), C(ended), C(host), C(by) and C(measured).
  type: list
  elements: dict
  returned: when O(history=true)
uncommitted:
  description: The names of the restores that still keep displaced data.
  type: list
  elements: str
  returned: success
held_bytes:
  description: The disk they hold, as far as it can be told without asking the stores.
  type: int
  returned: success
origin:
  description: What the live data was restored from.
  type: dict
  returned: success
proof:
  description: The last point that was proven by a restore here.
  type: dict
  returned: success
progress:
  description: What is being done right now.
  type: dict
  returned: success
ledger_state:
  description: Number of C(entries), C(head) hash and C(torn_bytes) of the ledger; it was verified.
  type: dict
  returned: success
sources:
  description: Names of the sources.
  type: list
  elements: str
  returned: success
logs:
  description: >-
    What the host remembers of each log that is shipped, by source, C(running), C(state), C(timeline) and C(position) as proven in the repository,
    C(caught_up) and C(alarms).
  type: dict
  returned: success
host_state:
  description: The directory on the host that all this was read from.
  type: str
  returned: success
points:
  description: The recovery points, oldest first, as M(lifeboat.recovery.snapshot_info) returns them.
  type: list
  elements: dict
  returned: when O(points=true)
notes:
  description: What is wrong with the snapshots of the service.
  type: list
  elements: raw
  returned: success
verdict:
  description: The verdict recorded.
  type: str
  returned: when O(verdict) is given
ledger:
  description: The entries this call wrote to the ledger of the service on its host, hash-chained.
  type: list
  elements: dict
  returned: always
run:
  description: The id of the run.
  type: str
  returned: success
error:
  description: What went wrong, C(code), C(what), C(where) and C(remedy).
  type: dict
  returned: failure, and in its place with O(fail=false)
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lifeboat.recovery.plugins.module_utils import arguments


def main():
    module = arguments.quiet(AnsibleModule)(
        argument_spec=dict(
            arguments.COMMON,
            verdict={
                "type": "str",
                "choices": ["verified", "restored", "degraded", "captured", "committed", "rolled_back", "blocked", "interrupted", "skipped", "failed"],
            },
            text={"type": "str", "default": ""},
            measured={"type": "dict"},
            history={"type": "bool", "default": False},
            ledger_run={"type": "str", "default": ""},
            points={"type": "bool", "default": False},
            fail={"type": "bool", "default": True},
        ),
        supports_check_mode=True,
    )
    arguments.perform(module, "status", work)


def work(spec, run, params, check):
    from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import LifeboatError

    try:
        return tell(spec, run, params, check)
    except LifeboatError as error:
        if params["fail"]:
            raise
        return {"error": error.as_dict()}


def tell(spec, run, params, check):
    from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import operations

    told = {}
    if params["verdict"]:
        told = operations.conclude(spec, run, params["verdict"], params["text"], check, params["measured"])
    if params["points"]:
        listed = operations.snapshots(spec)
        told.update(points=listed["points"], warnings=listed["warnings"])
    if params["history"]:
        recorded = operations.recorded(spec)
        told.update(runs=recorded["runs"], warnings=[*told.get("warnings", []), *recorded["warnings"]])
    return {**told, **operations.known(spec, params["ledger_run"])}


if __name__ == "__main__":
    main()
