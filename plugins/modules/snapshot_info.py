#!/usr/bin/python
# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: snapshot_info
short_description: List the snapshots and recovery points of a service
version_added: 0.1.0
description:
  - Lists what the repository holds of a service, oldest first, and says what is wrong with it.
extends_documentation_fragment:
  - lifeboat.recovery.service
  - lifeboat.recovery.service.reads
options:
  target:
    description:
      - Also say which point this target means, V(latest), V(proven), an ISO 8601 time with zone, a snapshot id or a point id.
    type: str
"""

EXAMPLES = r"""
- name: What could orders be restored to
  lifeboat.recovery.snapshot_info:
    service: "{{ lifeboat_service }}"
    entry: "{{ lifeboat_entry }}"
    repository: "{{ lifeboat_repository }}"
    keys: "{{ lifeboat_keys }}"
    target: latest
"""

RETURN = r"""
snapshots:
  description: All readable snapshots.
  type: list
  elements: dict
  returned: success
points:
  description: The points, with C(id), C(time), C(complete), C(missing), C(snapshots), C(skew_seconds), C(bytes) and C(proven);
      with copies also C(repositories), the names of those that hold it.
  type: list
  elements: dict
  returned: success
resolved:
  description: The point that O(target) means.
  type: dict
  returned: when O(target) is given
notes:
  description: What is wrong with the service's snapshots.
  type: list
  elements: raw
  returned: success
mark:
  description: Whether this host has a high-water mark by which a missing newest snapshot would be noticed.
  type: bool
  returned: success, for a service with sources
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
  returned: failure
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lifeboat.recovery.plugins.module_utils import arguments


def main():
    module = arguments.quiet(AnsibleModule)(argument_spec=dict(arguments.COMMON, target={"type": "str"}), supports_check_mode=True)
    arguments.perform(module, "points", work)


def work(spec, run, params, check):
    from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import operations

    return operations.snapshots(spec, params["target"])


if __name__ == "__main__":
    main()
