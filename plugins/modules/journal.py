#!/usr/bin/python
# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: journal
short_description: Sign the sealed journal of a run and publish it into the repository
version_added: 0.1.0
description:
  - Signs the seal of a run's journal with the signing key of the service, unless it is signed already, and stores the journal in the
    repository next to the snapshots of the service.
  - The host signs only what it can stand for. The journal must be whole, of that run, and say of the ledger of the service what the
    ledger on this host says itself.
  - The step V(finish) of M(lifeboat.recovery.run_state) does this by itself when it is told how.
extends_documentation_fragment:
  - lifeboat.recovery.service
  - lifeboat.recovery.service.changes
attributes:
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: none
options:
  journal:
    description:
      - The whole journal, as it is in the run directory, with its seal.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Sign the journal of a run and keep it next to the data
  lifeboat.recovery.journal:
    service: "{{ lifeboat_service }}"
    entry: "{{ lifeboat_entry }}"
    repository: "{{ lifeboat_repository }}"
    keys: "{{ lifeboat_keys }}"
    run: "{{ begun.run }}"
    journal: "{{ lookup('ansible.builtin.file', begun.run_dir ~ '/journal.jsonl', rstrip=false) }}"
"""

RETURN = r"""
object:
  description: The name of the object in the repository.
  type: str
  returned: success, not in check mode
signature:
  description: The signature of the seal, with C(algorithm), C(key), C(version) and C(value).
  type: dict
  returned: success, not in check mode
notes:
  description: Nothing, as yet.
  type: list
  elements: raw
  returned: success
ledger:
  description: The entries this call wrote to the ledger of the service on its host, hash-chained. There are none.
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
        argument_spec=dict(arguments.COMMON, journal={"type": "str", "required": True}),
        supports_check_mode=True,
    )
    text = module.params.pop("journal")  # an answer that repeats it would be as long as the journal

    def work(spec, run, params, check):
        from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import operations

        return operations.publish_journal(spec, run, text, check)

    arguments.perform(module, "journal", work)


if __name__ == "__main__":
    main()
