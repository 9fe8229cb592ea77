#!/usr/bin/python
# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: snapshot_restore
short_description: Stage, swap in, roll back or commit a restore of a service
version_added: 0.1.0
description:
  - Restores every source of the service beside its live data, verifies the copies, swaps them in and keeps what they displace
    until it is committed. Sources are worked on at once.
  - Every step is written to a ledger on the host before it is taken. The same task after an interruption at any place goes on
    where the last one was; nothing is done twice.
  - In check mode O(state=staged) and O(state=live) run the preflight, change nothing, and report all findings at once. The module
    fails when one of them is an error, unless O(fail=false).
  - Stop the service before O(state=live) and O(state=rolled_back), and start it afterwards. The module does not.
extends_documentation_fragment:
  - lifeboat.recovery.service
  - lifeboat.recovery.service.changes
  - lifeboat.recovery.service.gate
attributes:
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: full
    details:
      - Shows which point, snapshots and digests the live data comes from.
  idempotent:
    details:
      - With O(force=true) the data is always restored again.
options:
  state:
    description:
      - V(staged), the copies are built beside the live data and verified. Nothing is staged when the live data is the target already,
        which needs the origin marker of an earlier restore and an equal digest.
      - V(live), the copies have taken the place of the live data. Stages first where this run has not.
      - V(rolled_back), what a restore displaced is live again, and the restored copy is set aside.
      - V(committed), what a restore displaced or a rollback set aside is deleted.
    type: str
    choices: [staged, live, rolled_back, committed]
    default: live
  target:
    description:
      - V(latest) (the newest complete point), V(proven), an ISO 8601 time with zone, a snapshot id or a point id.
      - An unfinished restore of the same target keeps the point it began with.
    type: str
    default: latest
  rollback_run:
    description:
      - For O(state=rolled_back) and O(state=committed) the id of the run that restored, or V(last).
      - Empty for a service that took no part in what others undo or make final, which leaves its data alone.
    type: str
    default: last
  force:
    description:
      - Restore even when the live data is the target already.
    type: bool
    default: false
  depth:
    description:
      - How far preflight verifies the stored snapshots, see M(lifeboat.recovery.snapshot_verify).
    type: str
    choices: [exists, hash, decode]
    default: exists
  accept:
    description:
      - What preflight would refuse and the operator means. V(new_host), the service is restored on another machine than the one on which the
        snapshot was taken.
    type: list
    elements: str
    choices: [new_host]
    default: []
  fail:
    description:
      - In check mode, fail when preflight finds an error. V(false) only reports it in RV(findings) and RV(ok).
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Build and verify the copies, the service runs on
  lifeboat.recovery.snapshot_restore:
    service: "{{ lifeboat_service }}"
    entry: "{{ lifeboat_entry }}"
    repository: "{{ lifeboat_repository }}"
    keys: "{{ lifeboat_keys }}"
    run: "{{ lifeboat_run }}"
    state: staged
    target: latest
  register: staged

- name: Swap them in
  lifeboat.recovery.snapshot_restore:
    service: "{{ lifeboat_service }}"
    entry: "{{ lifeboat_entry }}"
    repository: "{{ lifeboat_repository }}"
    keys: "{{ lifeboat_keys }}"
    run: "{{ lifeboat_run }}"
    state: live
  when: not staged.noop

- name: Undo the last restore
  lifeboat.recovery.snapshot_restore:
    service: "{{ lifeboat_service }}"
    entry: "{{ lifeboat_entry }}"
    repository: "{{ lifeboat_repository }}"
    keys: "{{ lifeboat_keys }}"
    state: rolled_back
"""

RETURN = r"""
noop:
  description:
    - The live data is the target already, and status, health and invariants of the service pass now. Nothing is left to do.
    - In check mode the service is not asked, and it only says that the data is the target.
  type: bool
  returned: for O(state=staged) and O(state=live)
data_current:
  description: The live data is the target already; nothing was staged.
  type: bool
  returned: for O(state=staged) and O(state=live)
point:
  description: The point that is or was restored.
  type: dict
  returned: success
restore:
  description: The restore as the ledger tells it, C(restore) (its name), C(runs), C(live), C(verdict), C(sources) and more.
  type: dict
  returned: outside check mode
sources:
  description: Per source, C(state), C(snapshot), C(captured) and C(found) digests, C(proof), C(bytes), C(staged) and C(displaced) names.
  type: dict
  returned: success
findings:
  description:
    - What preflight found, C(level) (C(error), C(warning) or C(note)), C(kind) (of a closed list, see docs/preflight.md), C(source), C(cause), C(code),
      C(what), C(where) and C(remedy).
  type: list
  elements: dict
  returned: always
ok:
  description: Whether preflight found no error.
  type: bool
  returned: in check mode
host:
  description: The host that answered, C(name), C(id) (a hash of its machine id) and C(boot).
  type: dict
  returned: in check mode
clock:
  description:
    - When preflight C(began) and C(ended) by the clock of the host, in seconds since 1970. C(skew), between how many and how many seconds that clock is
      ahead of the controller's.
  type: dict
  returned: in check mode
places:
  description: The live data of each source in one word, C(source), C(live), C(network), C(inode), C(system) and C(captured) (identifiers of clusters).
  type: list
  elements: dict
  returned: in check mode
needs:
  description: The room that each copy takes where it is staged, C(source), C(device), C(mount), C(bytes), C(entries), C(free) and C(free_entries).
  type: list
  elements: dict
  returned: in check mode
estimate:
  description:
    - What it would move, in bytes. C(bytes) of data, of them C(reused) from the live data (estimated from a sample) and C(written) anew,
      C(fetched) as stored; the same in C(sources) by name.
    - C(link) is what was read of the repository, C(bytes) in C(seconds); C(cores) of the host; C(seconds) of this preflight.
    - Null when findings keep it from being told.
  type: dict
  returned: in check mode
resumes:
  description: The unfinished restore that would be gone on with.
  type: str
  returned: in check mode
writes:
  description: Per source, what was written since cutover and is set aside, C(known), C(written), C(differences).
  type: dict
  returned: for O(state=rolled_back)
freed:
  description: Bytes freed.
  type: int
  returned: for O(state=committed)
ledger:
  description: The entries this call wrote to the ledger of the service on its host, hash-chained.
  type: list
  elements: dict
  returned: success
run:
  description: The id of the run.
  type: str
  returned: success
error:
  description: What went wrong, C(code), C(what), C(where) and C(remedy).
  type: dict
  returned: failure
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lifeboat.recovery.plugins.module_utils import arguments

VERBS = {"staged": "restore", "live": "restore", "rolled_back": "rollback", "committed": "commit"}


def main():
    module = arguments.quiet(AnsibleModule)(
        argument_spec=dict(
            arguments.COMMON,
            state={"type": "str", "choices": ["staged", "live", "rolled_back", "committed"], "default": "live"},
            target={"type": "str", "default": "latest"},
            rollback_run={"type": "str", "default": "last"},
            force={"type": "bool", "default": False},
            depth={"type": "str", "choices": ["exists", "hash", "decode"], "default": "exists"},
            accept={"type": "list", "elements": "str", "choices": ["new_host"], "default": []},
            fail={"type": "bool", "default": True},
            gate=arguments.GATE,
        ),
        supports_check_mode=True,
    )
    arguments.perform(module, VERBS[module.params["state"]], work)


def work(spec, run, params, check):
    from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import operations

    told = operations.set_state(spec, run, params["state"], params["target"], params["rollback_run"], params, check)
    return arguments.refuse_findings(told) if params["fail"] else told


if __name__ == "__main__":
    main()
