# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every service of a catalog in this one process, one after the other, without Ansible.

usage: scale_engine.py capture|restore CATALOG [STATE_DIR]

capture: makes repository, keys and a point of each service. restore: stages and swaps in, as the playbook's modules do; with a STATE_DIR of its own,
so that no later restore finds anything of it. Prints {"cpu_seconds", "seconds"} without the start of Python.
"""

from __future__ import annotations

import json
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

ENGINE = "ansible_collections.lifeboat.recovery.plugins"


def main(verb: str, path: str, state_dir: str = "") -> int:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / ".dev"))
    lease, spec_of, operations = (import_module(f"{ENGINE}.module_utils.{name}") for name in ("lease", "spec", "pipeline.operations"))
    model = import_module(f"{ENGINE}.plugin_utils.catalog.model")
    catalog = model.load(path)
    run = lease.new_run("backup" if verb == "capture" else "restore")
    cpu, begin = time.process_time(), time.monotonic()
    for service in catalog.services:
        known: dict[str, Any] = catalog.hostvars(service)
        spec = spec_of.Spec.from_dict({
            "service": service, "entry": known["lifeboat_entry"], "repository": known["lifeboat_repository"], "keys": known["lifeboat_keys"],
            "state_dir": state_dir or known["lifeboat_state_dir"], "catalog": {"digest": catalog.digest, "document": catalog.document},
        })
        if verb == "capture":
            operations.prepare_repository(spec, False)
            operations.capture(spec, run, "auto")
        else:
            for state in ("staged", "live"):
                operations.set_state(spec, run, state, "latest", "last", {}, False)
            operations.conclude(spec, run, "restored", "", False)
    print(json.dumps({"cpu_seconds": time.process_time() - cpu, "seconds": time.monotonic() - begin}))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
