#!/usr/bin/python
# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: service_credential
short_description: Exchange a secret that backups and restores of a service use
version_added: 0.2.0
description:
  - Puts a new secret in the place of one that the catalog names by its file, and ends the old one. Runs on the host that has the file.
  - The new secret is written to a file beside the old one before anybody uses it, tried, and put in the old one's place at once, for its owner only.
    The old one ends last. A call that was killed is completed by the next one, and at no moment is the host without a secret that works.
  - No secret is in an argument, a result, the ledger or a server's log.
extends_documentation_fragment:
  - lifeboat.recovery.service
  - lifeboat.recovery.service.changes
attributes:
  diff_mode:
    description: Secrets are not shown.
    support: none
  idempotent:
    description: When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
    support: none
    details:
      - Each call makes a new secret.
options:
  kind:
    description:
      - V(secret_id) is the secret-id of an AppRole of Vault. A new one is made with the credentials of C(keys.rotate_auth), which need the capability
        C(update) on C(auth/MOUNT/role/NAME/secret-id) and C(auth/MOUNT/role/NAME/secret-id/destroy).
      - V(password) is the password of the role with which a source of type C(postgresql) or C(postgresql_database) connects. The role changes its
        own password; the server is given the SCRAM verifier only.
    type: str
    choices: [secret_id, password]
    required: true
  which:
    description:
      - For O(kind=secret_id) the login, C(auth), C(restore_auth) or C(rotate_auth). For O(kind=password) the name of the source.
    type: str
    required: true
  role_name:
    description:
      - For O(kind=secret_id), the name of the AppRole in Vault.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: A new secret-id for the backups of this service
  lifeboat.recovery.service_credential:
    service: "{{ lifeboat_service }}"
    entry: "{{ lifeboat_entry }}"
    repository: "{{ lifeboat_repository }}"
    keys: "{{ lifeboat_keys }}"
    kind: secret_id
    which: auth
    role_name: orders-backup

- name: A new password for the role that captures the database
  lifeboat.recovery.service_credential:
    service: "{{ lifeboat_service }}"
    entry: "{{ lifeboat_entry }}"
    repository: "{{ lifeboat_repository }}"
    keys: "{{ lifeboat_keys }}"
    kind: password
    which: db
"""

RETURN = r"""
file:
  description: The file that holds, or would hold, the new secret.
  type: str
  returned: success
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
        argument_spec=dict(
            arguments.COMMON,
            kind={"type": "str", "choices": ["secret_id", "password"], "required": True},
            which={"type": "str", "required": True},
            role_name={"type": "str", "default": ""},
        ),
        supports_check_mode=True,
    )
    arguments.perform(module, "rotate_keys", work)


def work(spec, run, params, check):
    from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import operations

    return operations.exchange_credential(spec, run, params["kind"], params["which"], params["role_name"], check)


if __name__ == "__main__":
    main()
