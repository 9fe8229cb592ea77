# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Give the virtual environments of ansible-test their pip from the standard library.

ansible-test looks for this name in ~/.ansible/test/cache before it downloads a bootstrap script.
ensurepip gets a process of its own because it points PIP_CONFIG_FILE at /dev/null for good.
"""

from __future__ import annotations

import subprocess
import sys

subprocess.check_call([sys.executable, "-m", "ensurepip"], stdout=subprocess.DEVNULL, timeout=300)
wanted = [argument for argument in sys.argv[1:] if argument not in ("--no-setuptools", "--no-wheel")]
sys.exit(subprocess.call([sys.executable, "-m", "pip", "install", "-q", *wanted], timeout=1800))
