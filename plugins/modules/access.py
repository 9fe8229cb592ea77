#!/usr/bin/python
# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: access
short_description: Give every role of a catalog its rights in Vault and in buckets
version_added: 0.1.0
description:
  - Computes from the catalog what each role may do with the keys and the objects of each service, and makes it so in policies and AppRoles of Vault
    and in the policies of buckets.
  - In check mode it shows with C(--diff) exactly what would change, and changes nothing.
  - What it did not make stays as it is. What it made for services that are not in the catalog any more is named, and removed with O(purge).
  - Runs where an administrator's credentials are, once for an ecosystem.
author:
  - Lifeboat contributors (@lifeboat-recovery)
requirements:
  - hvac, for keys in Vault
  - boto3, for repositories in buckets
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying target.
    support: full
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: full
options:
  catalog:
    description:
      - The normalised catalog. The catalog inventory sets it as C(lifeboat_catalog).
    type: dict
    required: true
  state:
    description:
      - V(present) gives the rights, V(absent) takes back all that this module gave for the ecosystem.
    type: str
    choices: [present, absent]
    default: present
  purge:
    description:
      - Remove what was made for services that are not in the catalog any more, and for roles that are not in O(roles).
    type: bool
    default: false
  roles:
    description:
      - The roles that are given rights. Empty means all but C(retire) and C(shred).
    type: list
    elements: str
    choices: [backup, restore, drill, prune, operator, rotate, auditor, bootstrap, retire, shred]
    default: []
  identities:
    description:
      - The names by which roles are known to Vault (AppRoles) and to the object store (users or roles), by role, with C({ecosystem}), C({host}),
        C({service}) and C({role}).
      - The default is C(lifeboat-{ecosystem}-{host}-{role}) for backup and restore, and C(lifeboat-{ecosystem}-{role}) for the others.
    type: dict
    default: {}
  drill:
    description:
      - The services that the role drill may open. It has no right over others.
    type: list
    elements: str
    default: []
  principal:
    description:
      - How the object store names an identity in a policy, with C({identity}) for its name, for example C(arn:aws:iam::123456789012:role/{identity}).
      - Empty leaves policies of buckets alone; RV(documents) has what to attach to the identities instead.
    type: str
    default: ""
  listing:
    description:
      - What of a bucket's names a role may list, V(service) those of its services, V(bucket) all.
      - Empty is V(bucket) for Amazon S3, which tells an absent object from a refused one only to whoever may list the bucket, and V(service) elsewhere.
    type: str
    choices: ["", service, bucket]
    default: ""
  token_ttl:
    description: Seconds that a token of an AppRole lives.
    type: int
    default: 3600
  token_max_ttl:
    description: Seconds after which it cannot be renewed any more.
    type: int
    default: 86400
  vault_auth:
    description:
      - How the administrator logs in to Vault, C(method) and its options, as C(keys.auth) of the catalog.
      - Empty takes the token of C(VAULT_TOKEN) or C(~/.vault-token).
    type: dict
    default: {}
  s3_credentials_file:
    description:
      - Shared credentials file of the bucket's owner. Empty takes what the S3 client finds by itself (environment, C(~/.aws), instance role).
    type: path
    default: ""
  s3_profile:
    description: The profile in it.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: What would change
  lifeboat.recovery.access:
    catalog: "{{ lifeboat_catalog }}"
    principal: arn:aws:iam::123456789012:role/{identity}
  delegate_to: localhost
  run_once: true
  check_mode: true
  diff: true

- name: Rights of backup and restore only, credentials of the administrator in files
  lifeboat.recovery.access:
    catalog: "{{ lifeboat_catalog }}"
    roles: [backup, restore]
    principal: arn:aws:iam::123456789012:role/{identity}
    vault_auth:
      method: token
      token_file: /run/admin/vault-token
    s3_credentials_file: /run/admin/s3
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
changes:
  description: What changed, or would, each with C(kind), C(name) and C(action) (V(create), V(update) or V(delete)).
  type: list
  elements: dict
  returned: always
documents:
  description: Per identity the policy that gives it its rights over objects, to be attached to it where policies of buckets are not used.
  type: dict
  returned: success
left:
  description: What was made for services or roles that are not there any more.
  type: list
  elements: str
  returned: success
error:
  description: What went wrong, C(code), C(what), C(where) and C(remedy).
  type: dict
  returned: failure
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lifeboat.recovery.plugins.module_utils import arguments
from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import LifeboatError

ROLES = ["backup", "restore", "drill", "prune", "operator", "rotate", "auditor", "bootstrap", "retire", "shred"]
#: What an administrator may give by value instead of in a file.
SECRET = ("token", "secret_id", "password", "jwt")


def main():
    module = arguments.quiet(AnsibleModule)(
        argument_spec={
            "catalog": {"type": "dict", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "purge": {"type": "bool", "default": False},
            "roles": {"type": "list", "elements": "str", "choices": ROLES, "default": []},
            "identities": {"type": "dict", "default": {}},
            "drill": {"type": "list", "elements": "str", "default": []},
            "principal": {"type": "str", "default": ""},
            "listing": {"type": "str", "choices": ["", "service", "bucket"], "default": ""},
            "token_ttl": {"type": "int", "default": 3600, "no_log": False},
            "token_max_ttl": {"type": "int", "default": 86400, "no_log": False},
            "vault_auth": {"type": "dict", "default": {}},
            "s3_credentials_file": {"type": "path", "default": "", "no_log": False},
            "s3_profile": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    params = module.params
    module.no_log_values |= {str(value) for name, value in params["vault_auth"].items() if name in SECRET and value}
    login = {"credentials_file": params["s3_credentials_file"], "profile": params["s3_profile"]}
    options = {**params, "s3_login": {name: value for name, value in login.items() if value}}
    try:
        from ansible_collections.lifeboat.recovery.plugins.module_utils.access import plan

        result = plan.perform(params["catalog"], options, bool(module.check_mode))
    except LifeboatError as error:
        module.fail_json(**{"changes": [], **error.result}, msg=str(error), error=error.as_dict())
        return
    for warning in result.pop("warnings"):
        module.warn(warning)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
