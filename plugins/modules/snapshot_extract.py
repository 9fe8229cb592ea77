#!/usr/bin/python
# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: snapshot_extract
short_description: Move one database or a few tables of a snapshot beside the live ones
version_added: 0.1.0
description:
  - Takes one database, or a few tables of one, out of a physical snapshot of a PostgreSQL cluster at any moment that its log covers,
    and moves it into the live cluster under a new name. Nothing that exists in the live cluster is altered, and nothing is stopped.
  - The cluster is staged privately beside the live one and checked, as a restore does. What is wanted is streamed from there into the
    live server, compared with the private copy, and gets its name last. The staged copy is removed in any case.
  - On any failure what was built is removed again. What an interrupted call left is removed by the next one.
  - In check mode it says what would be done and reports all findings at once. Whether a table exists at the target is known only
    when it is staged.
extends_documentation_fragment:
  - lifeboat.recovery.service
  - lifeboat.recovery.service.changes
attributes:
  diff_mode:
    description: There is nothing to show, nothing that exists changes.
    support: none
options:
  source:
    description:
      - The source to extract from, of type C(postgresql). The default is the only one of that type.
    type: str
    default: ""
  target:
    description:
      - As for M(lifeboat.recovery.snapshot_restore), also a position in the log such as V(lsn:0/16B3740), V(xid:742) or V(name:before-deploy).
    type: str
    default: latest
  database:
    description:
      - The database, as it was called at the target.
    type: str
    required: true
  tables:
    description:
      - Only these tables, each as C(schema.name), with their partitions. Empty means the whole database.
      - A part that holds a dot, a comma or a quote stands in double quotes, V(public."Odd.name"). Case counts.
      - They come into a new schema of the live database of the same name, with the types they use. What cannot stand by itself
        (foreign keys to other tables, triggers, policies, rules, whatever calls a function) is left out and listed in RV(left_out).
    type: list
    elements: str
    default: []
  name:
    description:
      - New name of the database, or of the schema for O(tables). A name that is taken is refused before anything is built.
      - The default is the database's name and the target, such as C(shop_20300131t120000z).
    type: str
    default: ""
  fail:
    description:
      - In check mode, fail when there is an error among the findings. V(false) only reports it in RV(findings) and RV(ok).
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Have the orders of noon at hand, beside those of today
  lifeboat.recovery.snapshot_extract:
    service: "{{ lifeboat_service }}"
    entry: "{{ lifeboat_entry }}"
    repository: "{{ lifeboat_repository }}"
    keys: "{{ lifeboat_keys }}"
    target: "2030-01-31T12:00:00Z"
    database: shop
    tables: [public.orders, public.order_lines]
    name: noon
  register: extracted

- name: Have the whole database as it was before the deployment
  lifeboat.recovery.snapshot_extract:
    service: "{{ lifeboat_service }}"
    entry: "{{ lifeboat_entry }}"
    repository: "{{ lifeboat_repository }}"
    keys: "{{ lifeboat_keys }}"
    target: name:before-deploy
    database: shop
"""

RETURN = r"""
kind:
  description: V(database) or V(schema), what was or would be made.
  type: str
  returned: success
name:
  description: Its name.
  type: str
  returned: success
noop:
  description: It was there already, made by an earlier call from the same target, and is equal.
  type: bool
  returned: outside check mode
message:
  description: What was done, in one line with its counts.
  type: str
  returned: outside check mode
tables:
  description: The tables that were extracted, C(table) and C(rows).
  type: list
  elements: dict
  returned: outside check mode
extracted:
  description: How many tables are equal on both sides. It is always RV(of), anything else fails.
  type: int
  returned: outside check mode
of:
  description: How many tables were wanted.
  type: int
  returned: outside check mode
left_out:
  description: What is not in it, and why.
  type: list
  elements: str
  returned: outside check mode
roles_missing:
  description: Roles that owned or might use something, and do not exist in the live cluster. The connecting role owns it instead.
  type: list
  elements: str
  returned: outside check mode
reached:
  description: Where recovery ended, C(timeline), C(position), C(last_commit), C(target).
  type: dict
  returned: outside check mode
digest:
  description: Keyed digest of the content, the same on both sides.
  type: str
  returned: outside check mode
point:
  description: The point it was taken from.
  type: dict
  returned: success
sources:
  description: The source, with C(snapshot), C(proof) (V(content)), C(captured) and C(found) digests.
  type: dict
  returned: outside check mode
findings:
  description: What stands against it, C(level), C(source), C(code), C(what), C(where) and C(remedy).
  type: list
  elements: dict
  returned: always
ok:
  description: Whether there is no error among the findings.
  type: bool
  returned: in check mode
leftovers:
  description: What an interrupted call left, which the next one removes first.
  type: list
  elements: str
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
        argument_spec=dict(
            arguments.COMMON,
            source={"type": "str", "default": ""},
            target={"type": "str", "default": "latest"},
            database={"type": "str", "required": True},
            tables={"type": "list", "elements": "str", "default": []},
            name={"type": "str", "default": ""},
            fail={"type": "bool", "default": True},
        ),
        supports_check_mode=True,
    )
    arguments.perform(module, "extract", work)


def work(spec, run, params, check):
    from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import operations
    from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline.extract import Request

    request = Request(params["target"], params["database"], tuple(params["tables"]), params["source"], params["name"])
    told = operations.extract(spec, run, request, check)
    return arguments.refuse_findings(told) if params["fail"] else told


if __name__ == "__main__":
    main()
