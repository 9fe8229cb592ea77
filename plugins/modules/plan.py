#!/usr/bin/python
# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file documents the action plugin of the same name and holds nothing that runs on a host.

from __future__ import annotations

DOCUMENTATION = r"""
module: plan
short_description: Decide what a run is about and whether it may begin
version_added: 0.1.0
author:
  - Lifeboat contributors (@lifeboat-recovery)
description:
  - The steps in which the playbooks of this collection come to their plan. Runs on the controller and changes nothing of the ecosystem.
  - A refusal tells everything that is wrong at once, each with its remedy.
options:
  step:
    description:
      - V(pick) decides which services the run is about, and which others have to be asked whether they are live.
      - V(build) makes the plan from what the hosts answered, or refuses.
      - V(judge) takes what preflight found and says whether the run goes on, with whom, or once more with older points. It forecasts the
        restore with what preflight measured, and refuses it where a tier's C(rto_gate) says so.
    type: str
    required: true
    choices: [pick, build, judge]
  verb:
    description: The verb of the run.
    type: str
    default: restore
  catalog:
    description: The catalog, as P(lifeboat.recovery.catalog#inventory) sets it in C(lifeboat_catalog). Needed by all steps.
    type: dict
  digest:
    description: The digest of the catalog.
    type: str
    default: ""
  inventory:
    description: What commands in messages name after C(-i).
    type: str
    default: ""
  services:
    description: The services to pick, a list or a comma list.
    type: raw
  select:
    description: A JMESPath expression over the catalog that gives names of services.
    type: str
    default: ""
  scope:
    description: How to widen the pick, V(service), V(requirements) or V(group).
    type: str
    default: service
  limit:
    description: The services that C(--limit) left over, when it was given.
    type: list
    elements: str
  pick:
    description:
      - For V(build) the RV(pick) of the step V(pick).
      - For V(judge) service to what M(lifeboat.recovery.service_state) answered with its points.
    type: dict
  answers:
    description:
      - For V(build) service to what M(lifeboat.recovery.service_state) answered.
      - For V(judge) service to what M(lifeboat.recovery.snapshot_restore) answered in check mode.
    type: dict
  probes:
    description: For V(build) the services outside the pick that were asked, each with C(service), C(role) and C(answer).
    type: list
    elements: dict
  target:
    description: V(latest), V(proven), an ISO 8601 time with a zone, a snapshot id or a point id.
    type: str
    default: latest
  dependants:
    description: What happens to live services outside the pick that need a picked one, V(stop) or V(ignore). Refused when it is empty.
    type: str
    default: ""
  confirm:
    description: The name of the ecosystem, where the catalog marks production.
    type: str
    default: ""
  partial:
    description: Go on with what does not depend on the services that cannot be restored.
    type: bool
    default: false
  forks:
    description: How many services Ansible works on at once.
    type: int
  of_run:
    description: For a rollback or commit the run whose restore it is about, or V(last).
    type: str
    default: ""
  explicit:
    description: Whether the services were named; if not, a rollback or commit is about those who took part in O(of_run).
    type: bool
    default: false
  root:
    description:
      - For V(pick) and V(build) the folder of run directories; what earlier restores in it took is the ground of the forecast. Without it
        there is none.
    type: path
    default: ""
  approval:
    description:
      - For V(build), the approvals of this plan, where the catalog asks for them. Files on the controller as a list or with commas between,
        or the text of one.
    type: raw
  flags:
    description: For V(build), what else decides what is done. It is kept in the plan, and an approval is bound to it.
    type: dict
  run:
    description: The run as M(lifeboat.recovery.run_state) returned it, for V(judge).
    type: dict
  plan:
    description: The plan, for V(judge).
    type: dict
  max_loss:
    description: How much more may be lost by going back to an older point when the chosen one does not verify, such as V(15m).
    type: str
    default: "0"
  format:
    description: How V(judge) shows the forecast of a restore. V(json) is the whole plan, as C(plan.json) has it.
    type: str
    choices: [text, json]
    default: text
attributes:
  check_mode:
    description: In check mode V(judge) notes nothing, and fails when the run would stop.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
"""

EXAMPLES = r"""
- name: Pick
  lifeboat.recovery.plan:
    step: pick
    catalog: "{{ lifeboat_catalog }}"
    services: orders,payments
  run_once: true
  register: lifeboat_pick
"""

RETURN = r"""
pick:
  description: The pick, for O(pick) of the step V(build).
  type: dict
  returned: step V(pick)
picked:
  description: The services in their order.
  type: list
  elements: str
  returned: steps V(pick) and V(build)
unmeasured:
  description: Picked services of which no run in O(root) tells how long their restore takes; their hosts may know.
  type: list
  elements: str
  returned: step V(pick)
outside:
  description: Services outside the pick that have to be asked, with C(service), C(role) and the C(phase) to ask for.
  type: list
  elements: dict
  returned: step V(pick)
plan:
  description: The plan.
  type: dict
  returned: steps V(build) and V(judge)
left_out:
  description: Service to the verdict it has before anything begins, with C(message), C(remedy) and C(root).
  type: dict
  returned: steps V(build) and V(judge)
resumes:
  description: The unfinished runs whose points are kept.
  type: list
  elements: str
  returned: step V(build)
gone:
  description: Runs that hold services and whose process on this controller is gone.
  type: list
  elements: str
  returned: step V(build)
attempts:
  description: Earlier attempts at the same, as the hosts know them, C(run), C(began), C(ended) and C(verdict).
  type: list
  elements: dict
  returned: step V(build)
of_run:
  description: The run whose restore a rollback or commit is about.
  type: str
  returned: step V(build)
stop:
  description: Whether the run ends here.
  type: bool
  returned: step V(judge)
again:
  description: Whether preflight has to be repeated with the changed RV(plan).
  type: bool
  returned: step V(judge)
lines:
  description: Every cause in one line, with whom it is about and what to do.
  type: list
  elements: str
  returned: step V(judge)
groups:
  description: The same as findings, each with C(services), C(places) and C(wheres).
  type: list
  elements: dict
  returned: step V(judge)
findings:
  description: Service to the findings that only show over several services or hosts.
  type: dict
  returned: step V(judge)
"""

from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    module = AnsibleModule(argument_spec={
        "step": {"type": "str", "required": True, "choices": ["pick", "build", "judge"]},
        "verb": {"type": "str", "default": "restore"},
        "catalog": {"type": "dict"},
        "digest": {"type": "str", "default": ""},
        "inventory": {"type": "str", "default": ""},
        "services": {"type": "raw"},
        "select": {"type": "str", "default": ""},
        "scope": {"type": "str", "default": "service"},
        "limit": {"type": "list", "elements": "str"},
        "pick": {"type": "dict"},
        "answers": {"type": "dict"},
        "probes": {"type": "list", "elements": "dict"},
        "target": {"type": "str", "default": "latest"},
        "dependants": {"type": "str", "default": ""},
        "confirm": {"type": "str", "default": ""},
        "partial": {"type": "bool", "default": False},
        "forks": {"type": "int"},
        "of_run": {"type": "str", "default": ""},
        "explicit": {"type": "bool", "default": False},
        "root": {"type": "path", "default": ""},
        "approval": {"type": "raw"},
        "flags": {"type": "dict"},
        "run": {"type": "dict"},
        "plan": {"type": "dict"},
        "max_loss": {"type": "str", "default": "0"},
        "format": {"type": "str", "default": "text", "choices": ["text", "json"]},
    }, supports_check_mode=True)
    module.fail_json(msg="lifeboat.recovery.plan is an action on the controller: call it as a task of a playbook")


if __name__ == "__main__":
    main()
