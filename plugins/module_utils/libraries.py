# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Third-party libraries, imported where they are needed and named when they are missing."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import threading
from typing import Any

from .errors import ConfigError, VersionError

#: import name -> requirement to install
REQUIREMENTS = {
    "blake3": "blake3",
    "boto3": "boto3",
    "cryptography": "cryptography",
    "hvac": "hvac",
    "jmespath": "jmespath",
    "numpy": "numpy",
    "psycopg2": "psycopg2-binary",
    "pyfastcdc": "pyfastcdc",
    "redis": "redis",
    "yaml": "PyYAML",
    "zstandard": "zstandard",
}


def begin(*names: str) -> None:
    """Begin to import libraries that need() will be asked for, while the caller waits for something else; tells nothing of what fails."""
    def run() -> None:
        for name in names:
            with contextlib.suppress(ConfigError):
                need(name)

    threading.Thread(target=run, name="libraries").start()


def need(name: str) -> Any:
    """Import ``name`` (dotted names allowed) or raise VersionError that names the package to install."""
    if name == "numpy" and name not in sys.modules:
        # what multiplies matrices would keep a thread per core spinning; nothing here does
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        return importlib.import_module(name)
    except ImportError as error:
        import platform

        package = REQUIREMENTS.get(name.split(".")[0], name.split(".")[0])
        raise VersionError(
            f"Python library {package} is missing or broken",
            f"{sys.executable} on {platform.node()}",
            f"run the bootstrap playbook or: {sys.executable} -m pip install {package}",
        ) from error
