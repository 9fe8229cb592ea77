# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One command on a service whose specification comes on standard input, so that a fault can kill the process that does it."""

from __future__ import annotations

import json
import sys

from ansible_collections.lifeboat.recovery.plugins.module_utils import lease
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import restore
from ansible_collections.lifeboat.recovery.plugins.module_utils.spec import Spec


def main(verb: str) -> None:
    """verb: restore, rollback or commit."""
    spec = Spec.from_dict(json.load(sys.stdin))
    run = lease.new_run(verb)
    if verb == "restore":
        if not restore.stage(spec, "latest", run)["noop"]:
            restore.go_live(spec, "latest", run)
        restore.mark_verified(spec, run, "verified")
    else:
        getattr(restore, "roll_back" if verb == "rollback" else "commit")(spec, run)


if __name__ == "__main__":
    main(sys.argv[1])
