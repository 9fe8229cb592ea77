#!/usr/bin/python
# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file documents the action plugin of the same name and holds nothing that runs on a host.

from __future__ import annotations

DOCUMENTATION = r"""
module: report
short_description: Report how long recoveries took
version_added: 0.1.0
author:
  - Lifeboat contributors (@lifeboat-recovery)
description:
  - Makes mean times to recover, their trend, success rates, failures by type and met recovery time objectives, per service, domain and tier, of the
    histories that hosts answered with, prints them and writes them as C(report.html) and C(report.json).
  - Runs on the controller and changes nothing of the ecosystem. In check mode it only prints.
options:
  catalog:
    description: The whole catalog, for domains, tiers and objectives.
    type: dict
    required: true
  answers:
    description: Service to what M(lifeboat.recovery.service_state) answered with O(lifeboat.recovery.service_state#module:history=true).
    type: dict
    required: true
  directory:
    description: Where to write the report; made when it is missing, former files are replaced.
    type: path
    required: true
attributes:
  check_mode:
    description: It writes no file then.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
"""

EXAMPLES = r"""
- name: Report on orders
  lifeboat.recovery.report:
    catalog: "{{ lifeboat_catalog }}"
    answers: {orders: "{{ lifeboat_known }}"}
    directory: runs/report
"""

RETURN = r"""
report:
  description: The document, C(services), C(domains), C(tiers), C(all) and C(silent); docs/runs.md of the collection describes it.
  type: dict
  returned: always
html:
  description: The page.
  type: str
  returned: outside check mode
json:
  description: The file with the document.
  type: str
  returned: outside check mode
"""

from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    module = AnsibleModule(argument_spec={
        "catalog": {"type": "dict", "required": True},
        "answers": {"type": "dict", "required": True},
        "directory": {"type": "path", "required": True},
    }, supports_check_mode=True)
    module.fail_json(msg="lifeboat.recovery.report is an action on the controller: call it as a task of a playbook")


if __name__ == "__main__":
    main()
