# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The process that hands out work comes before those that do it, where it may; in processes of their own, for niceness only ever grows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run import precedence

#: Says (whether it goes first, twice; its niceness; that of a fork).
SCRIPT = """
import importlib.util, json, os, sys
spec = importlib.util.spec_from_file_location("precedence", sys.argv[1])
precedence = importlib.util.module_from_spec(spec); spec.loader.exec_module(precedence)
if sys.argv[2] == "nobody":
    os.setuid(65534)
told = [precedence.go_first(5), precedence.go_first(5), os.getpriority(os.PRIO_PROCESS, 0)]
reader, writer = os.pipe()
if not os.fork():
    os.write(writer, str(os.getpriority(os.PRIO_PROCESS, 0)).encode()); os._exit(0)
os.wait()
print(json.dumps([*told, int(os.read(reader, 9))]))
"""


def tell(user: str) -> list[object]:
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(Path(str(precedence.__file__))), user], capture_output=True, text=True, timeout=120, check=True,
                          start_new_session=True)
    found = json.loads(done.stdout)
    assert isinstance(found, list)
    return found


def test_it_goes_first_once_where_it_may_and_what_it_forks_does_not() -> None:
    first, again, own, fork = tell("self")
    # in a container even root may not
    assert (first, again, own, fork) in ((True, True, -5, 0), (False, False, 0, 0))


def test_who_may_not_stays_where_he_is(tmp_path: Path) -> None:
    assert tell("nobody") == [False, False, 0, 0]
