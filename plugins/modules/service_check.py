#!/usr/bin/python
# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: service_check
short_description: Check status, health and invariants of a service
version_added: 0.1.0
description:
  - Asks the service whether it is well. First its databases (they answer and take the login), status and health, again and again until they pass
    or O(wait) is over, then once the schema version of its data and the invariants.
  - Fails and names the first check that failed and why, unless O(fail=false).
extends_documentation_fragment:
  - lifeboat.recovery.service
  - lifeboat.recovery.service.reads
options:
  phase:
    description:
      - What to check.
    type: str
    choices: [status, health, invariants, all]
    default: all
  wait:
    description:
      - Seconds to wait for status and health. Left out, the entry's C(policy.health.timeout) counts.
    type: float
  protect:
    description:
      - Also check that the next capture of the service would work, after all other checks have passed, and that the logs that
        the catalog declares are shipped from where the server is now. Nothing is written.
    type: bool
    default: false
  prewarm:
    description:
      - Also make the warm-up requests of the entry's C(prewarm), once status and health pass, and ask for the health again behind them.
        Only a request that is C(required) can fail.
    type: bool
    default: false
  fail:
    description:
      - Fail when a check fails. V(false) only reports it.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Wait until orders is well
  lifeboat.recovery.service_check:
    service: "{{ lifeboat_service }}"
    entry: "{{ lifeboat_entry }}"
    repository: "{{ lifeboat_repository }}"
    keys: "{{ lifeboat_keys }}"
    wait: 60
"""

RETURN = r"""
ok:
  description: Whether all checks passed.
  type: bool
  returned: success, and failure outside of a run directory
results:
  description: Each check with C(kind) (ready, status, health, schema, prewarm, invariant or protect), C(name), C(ok), C(detail) and C(seconds).
  type: list
  elements: dict
  returned: success, and failure outside of a run directory
declared:
  description: How many checks the service declares, C(status), C(health) and C(invariants).
  type: dict
  returned: success, and failure outside of a run directory
waited:
  description: Seconds until status and health passed.
  type: float
  returned: success, and failure outside of a run directory
judged:
  description: Seconds that the invariants took.
  type: float
  returned: success, and failure outside of a run directory
protected:
  description: Seconds that the check took whether the next capture would work.
  type: float
  returned: when O(protect=true) and all other checks passed
unshipped:
  description: Why a log that the catalog declares is not shipped, one line each; a warning, and no reason to fail.
  type: list
  elements: str
  returned: when O(protect=true) and all other checks passed
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
            phase={"type": "str", "choices": ["status", "health", "invariants", "all"], "default": "all"},
            wait={"type": "float"},
            protect={"type": "bool", "default": False},
            prewarm={"type": "bool", "default": False},
            fail={"type": "bool", "default": True},
        ),
        supports_check_mode=True,
    )
    arguments.perform(module, "check", work)


def work(spec, run, params, check):
    from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import operations

    told = operations.check(spec, params["phase"], params["wait"], params["prewarm"])
    if params["protect"]:
        from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import protection

        told = protection.add_check(spec, told)
    return arguments.refuse_checks(spec, told) if params["fail"] else told


if __name__ == "__main__":
    main()
