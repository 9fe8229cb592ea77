#!/usr/bin/python
# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: snapshot_copy
short_description: Copy the snapshots of a service to other repositories
version_added: 0.1.0
description:
  - Brings copies of the service's repository up to date, directly between the host and the repositories.
  - What is there already is not copied again, so a call that was interrupted is simply repeated. A snapshot appears in the copy when everything
    it needs is there and was read back.
  - A damaged object is named and not copied, and no snapshot that needs it. The module fails then, after it has copied all the rest.
  - It needs no key that opens content.
extends_documentation_fragment:
  - lifeboat.recovery.service
  - lifeboat.recovery.service.changes
attributes:
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: none
options:
  origin:
    description:
      - Name of the repository that is read. Empty means the one that the service writes to; the name of a copy brings lost objects back from it.
    type: str
    default: ""
  to:
    description:
      - Names of the repositories that are written. Empty means all others of the service.
    type: list
    elements: str
    default: []
  repair:
    description:
      - Read all that the repositories in O(to) hold of the service, and replace what is damaged and bring back what is missing, from wherever it is sound,
        any other repository of the service, or an older version in the same bucket. O(to) may name the repository itself then.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Copy what is new
  lifeboat.recovery.snapshot_copy:
    service: "{{ lifeboat_service }}"
    entry: "{{ lifeboat_entry }}"
    repository: "{{ lifeboat_repository }}"
    keys: "{{ lifeboat_keys }}"

- name: Fill a repository that was lost and made anew
  lifeboat.recovery.snapshot_copy:
    service: orders
    entry: "{{ lifeboat_entry }}"
    repository:
      name: local
      url: file:///srv/backup
      copies:
        - name: global
          url: s3://backups/shop
    keys: "{{ lifeboat_keys }}"
    origin: global
    to: [local]
"""

RETURN = r"""
copies:
  description: Per repository that was written C(name), C(from), C(objects), C(bytes), C(snapshots) (ids that are complete there since now) and C(problems).
  type: list
  elements: dict
  returned: success
ok:
  description: Whether everything was copied.
  type: bool
  returned: success
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
    module = arguments.quiet(AnsibleModule)(
        argument_spec=dict(arguments.COMMON, origin={"type": "str", "default": ""}, to={"type": "list", "elements": "str", "default": []},
                           repair={"type": "bool", "default": False}),
        supports_check_mode=True,
    )
    arguments.perform(module, "copy", work)


def work(spec, run, params, check):
    from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import operations

    told = operations.copy(spec, run, params["to"], params["origin"], check, params["repair"])
    told["findings"] = [{"level": "error", **problem} for copy in told["copies"] for problem in copy["problems"]]
    return arguments.refuse_findings(told)


if __name__ == "__main__":
    main()
