# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: E402

from __future__ import annotations

DOCUMENTATION = r"""
module: fake_long
short_description: Pretends to work and tells its progress, as the real modules do
author: [Lifeboat contributors]
options:
  service: {type: str, required: true, description: [The service.]}
  state_dir: {type: str, default: "", description: [Where the progress file goes.]}
  run: {type: dict, default: {}, description: [The run.]}
  steps: {type: int, default: 0, description: [How many steps of a tenth of a second.]}
  secret: {type: str, default: "", description: [Must not be seen.]}
  fail: {type: str, default: "", description: [Fail with this message.]}
  hold: {type: path, default: "", description: [Work until this file is there, at most five minutes.]}
"""

import hashlib
import json
import os
import time

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lifeboat.recovery.plugins.module_utils import state
from ansible_collections.lifeboat.recovery.plugins.module_utils.progress import Progress


def main():
    module = AnsibleModule(argument_spec={
        "service": {"type": "str", "required": True}, "state_dir": {"type": "str", "default": ""}, "run": {"type": "dict", "default": {}},
        "steps": {"type": "int", "default": 0}, "secret": {"type": "str", "default": "", "no_log": True}, "fail": {"type": "str", "default": ""},
        "hold": {"type": "path", "default": ""},
    }, supports_check_mode=True)
    given = module.params
    folder = state.service_dir(state.resolve_state_dir(given["state_dir"]), given["service"])
    os.makedirs(folder, exist_ok=True)
    progress = Progress(given["service"], "stage", os.path.join(folder, "progress.json"))
    progress.expect(given["steps"] << 20)
    for _step in range(given["steps"]):
        time.sleep(0.1)
        progress.add(1 << 20, 1)
    progress.say("all steps are done")
    deadline = time.monotonic() + 300
    while given["hold"] and not os.path.exists(given["hold"]) and time.monotonic() < deadline:
        time.sleep(0.05)
    progress.close()
    entry = {"seq": 1, "time": "t", "run": given["run"].get("id", ""), "verb": "restore", "service": given["service"], "phase": "stage",
             "event": "stage.verified", "data": {"source": "db"}, "prev": "0" * 64}
    entry["hash"] = hashlib.sha256(json.dumps(entry, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    answer = {"ledger": [entry], "sources": {"db": {"state": "staged", "snapshot": "orders.db-000001-aa"}}, "echo": given["secret"],
              "keys_of_run": sorted(given["run"])}
    if given["fail"]:
        module.fail_json(msg=given["fail"], error={"code": "storage", "what": given["fail"], "where": "", "remedy": "free space"}, **answer)
    module.exit_json(changed=not module.check_mode, **answer)


if __name__ == "__main__":
    main()
