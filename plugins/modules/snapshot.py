#!/usr/bin/python
# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: snapshot
short_description: Capture the sources of a service
version_added: 0.1.0
description:
  - Takes one snapshot of every source of the service at once. Together they are one recovery point, named after the run.
  - An unchanged source stores no data again. When one source fails, no snapshot is published.
  - In check mode the preflight of the capture runs and nothing is written; the module fails when a capture would fail.
extends_documentation_fragment:
  - lifeboat.recovery.service
  - lifeboat.recovery.service.changes
attributes:
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: none
  idempotent:
    details:
      - The same run takes one point only; another run takes another one.
options:
  mode:
    description:
      - V(auto) and V(incremental) compare with the newest readable snapshot, V(full) reads everything anew.
    type: str
    choices: [auto, full, incremental]
    default: auto
"""

EXAMPLES = r"""
- name: Capture orders
  lifeboat.recovery.snapshot:
    service: "{{ lifeboat_service }}"
    entry: "{{ lifeboat_entry }}"
    repository: "{{ lifeboat_repository }}"
    keys: "{{ lifeboat_keys }}"
"""

RETURN = r"""
snapshots:
  description: The snapshots taken, one per source, with C(id), C(source), C(digest), C(proof), C(bytes_source), C(bytes_stored) and more.
  type: list
  elements: dict
  returned: success
findings:
  description: In check mode what would keep the capture from working, C(level), C(source), C(what), C(where) and C(remedy).
  type: list
  elements: dict
  returned: in check mode
ok:
  description: In check mode whether a capture would work.
  type: bool
  returned: in check mode
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


def main():
    module = arguments.quiet(AnsibleModule)(
        argument_spec=dict(arguments.COMMON, mode={"type": "str", "choices": ["auto", "full", "incremental"], "default": "auto"}),
        supports_check_mode=True,
    )
    arguments.perform(module, "backup", work)


def work(spec, run, params, check):
    from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import operations

    if check:
        return arguments.refuse_findings(operations.preflight_capture(spec))
    return operations.capture(spec, run, params["mode"])


if __name__ == "__main__":
    main()
