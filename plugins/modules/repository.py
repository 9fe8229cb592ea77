#!/usr/bin/python
# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: repository
short_description: Create the repository and the keys of a service
version_added: 0.1.0
description:
  - Creates the repository and its copies where they are missing, makes the keys of the service that are missing, and proves that both work
    by writing, reading back and removing a probe object.
  - What exists is never changed or replaced.
extends_documentation_fragment:
  - lifeboat.recovery.service
  - lifeboat.recovery.service.changes
attributes:
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: none
options:
  state:
    description:
      - V(present) makes what is missing.
    type: str
    choices: [present]
    default: present
"""

EXAMPLES = r"""
- name: A repository and keys for orders
  lifeboat.recovery.repository:
    service: orders
    entry: "{{ lifeboat_entry }}"
    repository:
      url: file:///srv/backup
    keys:
      provider: file
      path: /etc/lifeboat/keys
      private_path: /etc/lifeboat/private
"""

RETURN = r"""
made:
  description: What was missing and has been made, V(repository), V(keys) or V(copy NAME).
  type: list
  elements: str
  returned: success
repository:
  description: C(id) and C(url) of the repository.
  type: dict
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
        argument_spec=dict(arguments.COMMON, state={"type": "str", "choices": ["present"], "default": "present"}),
        supports_check_mode=True,
    )
    arguments.perform(module, "bootstrap", work)


def work(spec, run, params, check):
    from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import operations

    return operations.prepare_repository(spec, check)


if __name__ == "__main__":
    main()
