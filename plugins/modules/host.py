#!/usr/bin/python
# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: host
short_description: Prepare a host for its services
version_added: 0.1.0
description:
  - Checks that the Python libraries and programs are there that the sources of the service need, and names all that are missing at once.
  - Makes the state directory and writes the specification of the service that the host command C(lifeboat) reads.
    What opens snapshots is never written.
extends_documentation_fragment:
  - lifeboat.recovery.service
  - lifeboat.recovery.service.changes
attributes:
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: none
options:
  also:
    description:
      - Other services of the same host that are prepared by the same call, each with the options of one service.
      - One without C(catalog) is of the same catalog as O(service).
    type: list
    elements: dict
    default: []
  config_dir:
    description:
      - Where the specifications go. Empty chooses C(/etc/lifeboat) for root, C(~/.config/lifeboat) otherwise.
    type: str
    default: ""
  command_path:
    description:
      - Where the host command will go. Empty chooses C(/usr/local/bin/lifeboat) for root, C(~/.local/bin/lifeboat) otherwise.
        Its directory is made.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Prepare the host of orders
  lifeboat.recovery.host:
    service: "{{ lifeboat_service }}"
    entry: "{{ lifeboat_entry }}"
    repository: "{{ lifeboat_repository }}"
    keys: "{{ lifeboat_keys }}"
"""

RETURN = r"""
made:
  description: The directories and files that were missing or different, and were made.
  type: list
  elements: str
  returned: success
config_dir:
  description: Where the specifications are.
  type: str
  returned: success
command_path:
  description: Where the host command belongs.
  type: str
  returned: success
python:
  description: The interpreter that has the libraries.
  type: str
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
        argument_spec=dict(
            arguments.COMMON,
            also={"type": "list", "elements": "dict", "default": []},
            config_dir={"type": "str", "default": ""},
            command_path={"type": "str", "default": ""},
        ),
        supports_check_mode=True,
    )
    arguments.perform(module, "bootstrap", work)


def work(spec, run, params, check):
    from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import host

    specs = [spec, *(type(spec).from_dict({"catalog": params["catalog"], **other}) for other in params["also"])]
    return host.prepare(specs, params["config_dir"], params["command_path"], check)


if __name__ == "__main__":
    main()
