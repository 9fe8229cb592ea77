# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a command after something has happened: ``after.py FILE COMMAND…`` waits until the file exists, at most a quarter of an hour."""

from __future__ import annotations

import os
import sys
import time

LIMIT = 900

if __name__ == "__main__":
    deadline = time.monotonic() + LIMIT
    while not os.path.exists(sys.argv[1]):
        if time.monotonic() > deadline:
            sys.exit(f"{sys.argv[1]} did not come in {LIMIT} s")
        time.sleep(0.05)
    os.execv(sys.argv[2], sys.argv[2:])
