# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The process that hands out work comes before those that do it, where it may; in processes of their own, for niceness only ever grows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run import precedence

#: Its arguments: the file of the module, and who it is. Tells whether it goes first, twice; its niceness then, that of its session and that of a fork.
SCRIPT = """
import importlib.util, json, os, resource, sys
spec = importlib.util.spec_from_file_location("precedence", sys.argv[1])
precedence = importlib.util.module_from_spec(spec); spec.loader.exec_module(precedence)
precedence._of_session()  # loads all that it takes: another user may not read the interpreter's files
if sys.argv[2] == "nobody":
    resource.setrlimit(resource.RLIMIT_NICE, (0, 0))
    if os.geteuid() == 0:
        os.setuid(65534)
told = {"first": precedence.go_first(5), "again": precedence.go_first(5), "own": os.getpriority(os.PRIO_PROCESS, 0), "session": precedence._of_session()}
reader, writer = os.pipe()
if not os.fork():
    os.write(writer, str(os.getpriority(os.PRIO_PROCESS, 0)).encode()); os._exit(0)
os.wait()
print(json.dumps({**told, "fork": int(os.read(reader, 9))}))
"""
#: A session in which it runs, with a niceness of its own where the kernel has such a thing; adds that of the session before and after.
AROUND = """
import json, subprocess, sys
def session():
    try:
        with open("/proc/self/autogroup") as handle:
            return int(handle.read().split()[-1])
    except (OSError, IndexError):
        return 0
try:
    with open("/proc/self/autogroup", "w") as handle:
        handle.write("7")
except OSError:
    pass
before = session()
told = json.loads(subprocess.run([sys.executable, "-c", *sys.argv[1:]], stdout=subprocess.PIPE, check=True).stdout)
print(json.dumps({**told, "before": before, "after": session()}))
"""
#: Whether a process may lower its niceness.
MAY = "import os; os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0) - 5)"


def tell(user: str) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-c", AROUND, SCRIPT, str(precedence.__file__), user], capture_output=True, text=True, timeout=120, check=True,
                          start_new_session=True)
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def test_it_goes_first_once_where_it_may_and_what_it_forks_does_not() -> None:
    # in a container even root may not
    may = subprocess.run([sys.executable, "-c", MAY], capture_output=True, timeout=120, check=False).returncode == 0
    by, was, told = 5 if may else 0, os.getpriority(os.PRIO_PROCESS, 0), tell("self")
    before = told["before"]  # 7, or 0 where sessions have none
    session = before - by if before else 0
    assert told == {"first": may, "again": may, "own": was - by, "session": session, "fork": was, "before": before, "after": before}


def test_who_may_not_stays_where_he_is() -> None:
    was, told = os.getpriority(os.PRIO_PROCESS, 0), tell("nobody")
    before = told["before"]
    assert told == {"first": False, "again": False, "own": was, "session": before, "fork": was, "before": before, "after": before}
