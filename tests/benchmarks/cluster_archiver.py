# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hand the finished segments of a data directory to pgbackrest archive-push as the server's archiver does: one call per segment, in order.

usage: cluster_archiver.py CONFIG DIRECTORY. Prints {"begun", "done"}: monotonic seconds before the first and after the last call.
What pgBackRest leaves in the background is waited for after that, so that its processor time counts.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import time

from cluster_server import drop

_SUBREAPER = 36


def main(config: str, directory: str) -> int:
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    status = f"{directory}/pg_wal/archive_status"
    begun = time.monotonic()
    for name in sorted(os.listdir(status)):
        segment = name[:-len(".ready")]
        subprocess.run(["pgbackrest", f"--config={config}", "--stanza=main", f"--pg1-path={directory}", "archive-push", f"{directory}/pg_wal/{segment}"],
                       check=True, timeout=600, cwd="/", **drop())
        os.rename(f"{status}/{name}", f"{status}/{segment}.done")
    done = time.monotonic()
    try:
        while True:
            os.waitpid(-1, 0)
    except ChildProcessError:
        pass
    print(json.dumps({"begun": begun, "done": done}))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
