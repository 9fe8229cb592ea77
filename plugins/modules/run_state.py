#!/usr/bin/python
# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file documents the action plugin of the same name and holds nothing that runs on a host.

from __future__ import annotations

DOCUMENTATION = r"""
module: run_state
short_description: Begin a run, note where its services stand, and finish it
version_added: 0.1.0
author:
  - Lifeboat contributors (@lifeboat-recovery)
description:
  - Keeps the run directory on the controller. There are C(plan.json), the state of every service, the journal, the times,
    and at the end C(run.json) and C(report.html).
  - Never reports C(changed), because it changes nothing of the ecosystem.
options:
  step:
    description:
      - V(begin) creates the run directory, writes O(plan) to it and shows it. In check mode it writes nothing else.
        Former runs of the same verb and ecosystem that have no end, and whose controller process is gone, are sealed as interrupted.
      - V(phase) starts or ends a phase of a service; starting one ends the one before.
      - V(verdict) gives a service its verdict. The first verdict stands; a later one changes nothing and the first is returned.
      - V(on_error) tells what O(policy) says about the phase that a service is in.
      - V(note) keeps what a module answered, and O(text) in the journal.
      - V(human_wait) starts or ends a time in which the run waits for people; it is shown apart.
      - V(finish) seals the run and its journal, gives every picked service without a verdict the verdict V(failed), and decides.
        With O(service) the task fails when that service did not succeed, without it when the run did not.
    type: str
    required: true
    choices: [begin, phase, verdict, on_error, note, human_wait, finish]
  run:
    description:
      - The run as the step V(begin) returned it. Needed by all other steps unless O(run_dir) is given.
    type: dict
  run_dir:
    description:
      - The run directory. For V(begin) the one to create, instead of a new one under O(root).
    type: path
  verb:
    description:
      - The verb of the run, for V(begin).
    type: str
  ecosystem:
    description:
      - The name of the ecosystem, for V(begin).
    type: str
  plan:
    description:
      - The plan, for V(begin), kept whole in C(plan.json). Known parts are C(order), C(islands), C(services), C(target), C(warnings)
        and C(catalog_digest).
    type: dict
  picked:
    description:
      - The services that the run answers for, in their order, for V(begin). The default is C(order) of O(plan).
    type: list
    elements: str
  root:
    description:
      - The folder of run directories, for V(begin). Unfinished former runs are looked for here.
    type: path
    default: runs
  incident_started:
    description:
      - When the incident began, ISO 8601 with a zone, for V(begin). The recovery time is counted from here.
        The default is the start of the first of the attempts that this run goes on with.
    type: str
    default: ""
  resumes:
    description:
      - Runs that this one resumes as the hosts know them, oldest first, for V(begin).
    type: list
    elements: str
  gone:
    description:
      - Runs that hold services and whose process on this controller is gone, for V(begin). This run may take the services over at once.
    type: list
    elements: str
  attempts:
    description:
      - Earlier attempts as the hosts know them, RV(lifeboat.recovery.plan#module:attempts), for V(begin). The time between the end of one and the begin
        of the next is shown as waiting for people.
    type: list
    elements: dict
  invocation:
    description:
      - What the next command needs, for V(begin), as a mapping with C(catalog), C(services), C(target), C(run) and C(confirm).
    type: dict
  show:
    description:
      - Whether V(begin) prints the plan.
    type: bool
    default: true
  service:
    description:
      - The service, for V(phase), V(verdict), V(on_error), V(note) and optionally V(finish) and V(human_wait).
    type: str
  phase:
    description:
      - The phase, for V(phase). For V(verdict) the one that failed, where others came after it.
    type: str
    choices: [plan, preflight, stage, island, stop, gate, cutover, migrate, start, health, invariants, protect, verdict, capture, verify, commit, rollback]
  event:
    description:
      - Whether the phase, or the wait for people, starts or ends.
    type: str
    choices: [start, end]
    default: start
  outcome:
    description:
      - How a phase ended.
    type: str
    choices: [done, failed]
    default: done
  policy:
    description:
      - What the service's entry says under C(policy), for V(on_error).
    type: dict
  verdict:
    description:
      - The verdict, for V(verdict). A word that is not in the closed list counts as V(failed).
      - V(verified) and V(restored) become V(degraded) when the gate let the service pass with a soft requirement down.
    type: str
  text:
    description:
      - Why, in one line. The default for V(failed) is what the last failed module of the service said.
    type: str
    default: ""
  remedy:
    description:
      - What to do about it, in one line.
    type: str
    default: ""
  degraded_by:
    description:
      - Soft requirements that are down, for V(verdict).
    type: list
    elements: str
  subject:
    description:
      - Under which subject O(answer) is kept for C(run.json), for example V(checks).
    type: str
  answer:
    description:
      - What a module answered (the registered result). Its C(ledger) is collected; the rest is kept under O(subject).
    type: dict
  publish:
    description:
      - For V(finish) with O(service), what M(lifeboat.recovery.journal) takes of the service, C(entry), C(repository), C(keys),
        C(state_dir) and C(catalog). The host of the first service that can then signs the sealed journal and publishes it into its
        repository, and journals of former runs that nobody published.
      - Without it the journal is sealed and stays where it is, apart from the copies that the plan names under C(audit).
    type: dict
attributes:
  check_mode:
    description: In check mode only V(begin) writes, and only C(plan.json).
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
"""

EXAMPLES = r"""
- name: Begin the run
  lifeboat.recovery.run_state:
    step: begin
    verb: restore
    ecosystem: "{{ lifeboat_ecosystem }}"
    plan: "{{ plan }}"
  run_once: true
  register: begun

- name: Give the service its verdict
  lifeboat.recovery.run_state:
    step: verdict
    run: "{{ begun.run }}"
    service: "{{ lifeboat_service }}"
    verdict: verified

- name: Finish the run; a service that did not succeed fails here
  lifeboat.recovery.run_state:
    step: finish
    run: "{{ begun.run }}"
    service: "{{ lifeboat_service }}"
"""

RETURN = r"""
run:
  description: The run, for the O(run) of other tasks. It names who runs it and, as C(directory), where its files are.
  returned: step V(begin)
  type: dict
run_dir:
  description: The run directory.
  returned: step V(begin)
  type: str
picked:
  description: The services of the run.
  returned: step V(begin)
  type: list
  elements: str
resumes:
  description: The runs that this one resumes.
  returned: step V(begin)
  type: list
  elements: str
action:
  description: What the policy of the service says about a failure of the phase it is in, C(fail) or C(rollback).
  returned: step V(on_error)
  type: str
verdict:
  description: The verdict that stands.
  returned: steps V(verdict) and V(finish) with O(service)
  type: str
outcome:
  description: V(success), V(degraded) or V(failed).
  returned: step V(finish)
  type: str
exit_code:
  description: The exit code that the run comes to. 0 for success, 2 for degraded, 3 for failed.
  returned: step V(finish)
  type: int
counts:
  description: How many services were picked, how many have a verdict, and how many have which.
  returned: step V(finish)
  type: dict
run_json:
  description: The path of C(run.json).
  returned: step V(finish)
  type: str
"""

from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    module = AnsibleModule(argument_spec={
        "step": {"type": "str", "required": True, "choices": ["begin", "phase", "verdict", "on_error", "note", "human_wait", "finish"]},
        "run": {"type": "dict"},
        "run_dir": {"type": "path"},
        "verb": {"type": "str"},
        "ecosystem": {"type": "str"},
        "plan": {"type": "dict"},
        "picked": {"type": "list", "elements": "str"},
        "root": {"type": "path", "default": "runs"},
        "incident_started": {"type": "str", "default": ""},
        "resumes": {"type": "list", "elements": "str"},
        "gone": {"type": "list", "elements": "str"},
        "attempts": {"type": "list", "elements": "dict"},
        "invocation": {"type": "dict"},
        "show": {"type": "bool", "default": True},
        "service": {"type": "str"},
        "phase": {"type": "str", "choices": [
            "plan", "preflight", "stage", "island", "stop", "gate", "cutover", "migrate", "start", "health", "invariants", "protect", "verdict",
            "capture", "verify", "commit", "rollback",
        ]},
        "event": {"type": "str", "choices": ["start", "end"], "default": "start"},
        "outcome": {"type": "str", "choices": ["done", "failed"], "default": "done"},
        "verdict": {"type": "str"},
        "text": {"type": "str", "default": ""},
        "remedy": {"type": "str", "default": ""},
        "policy": {"type": "dict"},
        "degraded_by": {"type": "list", "elements": "str"},
        "subject": {"type": "str"},
        "answer": {"type": "dict"},
        "publish": {"type": "dict"},
    }, supports_check_mode=True)
    module.fail_json(msg="lifeboat.recovery.run_state is an action on the controller: call it as a task of a playbook")


if __name__ == "__main__":
    main()
