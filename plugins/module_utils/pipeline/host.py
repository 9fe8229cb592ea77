# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""What a host needs before it can capture or restore a service: libraries, programs, state directory, the service's specification."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import sys
from typing import Any

from .. import durable, state
from ..errors import ConfigError, StorageError
from ..libraries import REQUIREMENTS
from ..spec import Spec

#: What every service needs, by import name.
_ALWAYS = ("blake3", "cryptography", "pyfastcdc", "zstandard")
#: Programs of a source type, looked for in its option ``bin_dir`` and in PATH, and the Debian package that has them.
_PROGRAMS = {"postgresql_database": (("pg_dump", "pg_restore", "psql"), "postgresql-client")}


def libraries(spec: Spec) -> list[str]:
    """The Python libraries that a service needs on its host, by import name."""
    wanted = set(_ALWAYS)
    types = {str(source.get("type")) for source in (spec.entry.get("sources") or {}).values()}
    wanted |= {"psycopg2"} if any(kind.startswith("postgresql") for kind in types) else set()
    wanted |= {"redis"} if "redis" in types else set()
    wanted |= {"numpy"} if "postgresql" in types else set()
    wanted |= {"boto3"} if any(str(place.get("url", "")).startswith("s3:") for place in spec.places().values()) else set()
    wanted |= {"hvac"} if spec.keys.get("provider") == "vault" else set()
    wanted |= {"jmespath"} if any("json" in check for check in spec.entry.get("invariants") or []) else set()
    return sorted(wanted)


def missing(specs: list[Spec]) -> tuple[list[str], list[str]]:
    """(requirements to install with pip, programs that are not there, each with its package), each once."""
    lacking = set()
    for name in {name for spec in specs for name in libraries(spec)}:
        try:
            importlib.import_module(name)
        except ImportError:
            lacking.add(REQUIREMENTS.get(name, name))
    programs = set()
    for source in (source for spec in specs for source in (spec.entry.get("sources") or {}).values()):
        wanted, package = _PROGRAMS.get(str(source.get("type")), ((), ""))
        places = os.pathsep.join(place for place in (str(source.get("bin_dir") or ""), os.environ.get("PATH", os.defpath)) if place)
        programs |= {f"program {program} (package {package})" for program in wanted if not shutil.which(program, path=places)}
    return sorted(lacking), sorted(programs)


def config_dir(configured: str) -> str:
    """Where the specifications of a host's services live. Raises ConfigError for a relative path."""
    if not configured:
        return "/etc/lifeboat" if os.geteuid() == 0 else os.path.expanduser("~/.config/lifeboat")
    path = os.path.expanduser(configured)
    if not os.path.isabs(path):
        raise ConfigError("The configuration directory must be an absolute path", configured, "set lifeboat_config_dir to an absolute path")
    return os.path.normpath(path)


def command_path(configured: str) -> str:
    """Where the host command goes. Raises ConfigError for a relative path."""
    if not configured:
        return "/usr/local/bin/lifeboat" if os.geteuid() == 0 else os.path.expanduser("~/.local/bin/lifeboat")
    path = os.path.expanduser(configured)
    if not os.path.isabs(path):
        raise ConfigError("The host command needs an absolute path", configured, "set lifeboat_command_path to an absolute path")
    return os.path.normpath(path)


def specification(spec: Spec) -> dict[str, Any]:
    """What the host command reads. A host holds the right to seal only, so what opens snapshots is left out.

    The catalog comes along: a snapshot that the host command takes keeps it too, and it asks for a confirmation where it marks production.
    """
    keys = {key: value for key, value in spec.keys.items() if key != "private_path"}
    document = spec.catalog_document()
    production = bool(spec.catalog.get("production") or (document or {}).get("production"))
    return {
        "service": spec.service, "entry": spec.entry, "repository": spec.repository, "keys": keys, "state_dir": spec.state_dir,
        "catalog": {**{key: spec.catalog.get(key) for key in ("digest", "ecosystem")}, "production": production, "document": document},
    }


def prepare(specs: list[Spec], configured_config: str, configured_command: str, check: bool) -> dict[str, Any]:
    """Prepare a host for these services: {"changed", "made": [path], "config_dir", "command_path", "python"}.

    Raises ConfigError that names everything that is missing; nothing is made then.
    """
    lacking, programs = missing(specs)
    if lacking or programs:
        remedy = [f"run: {sys.executable} -m pip install {' '.join(lacking)}"] if lacking else []
        remedy += ["install the packages of these programs, or set bin_dir"] if programs else []
        raise ConfigError(
            "missing on this host: " + ", ".join([*(f"Python library {name}" for name in lacking), *programs]),
            f"{platform.node()}, {sys.executable}", "; ".join(remedy),
        )
    directory, command = config_dir(configured_config), command_path(configured_command)
    files = {spec.service: os.path.join(directory, "services", f"{spec.service}.json") for spec in specs}
    folders = [os.path.join(directory, "services"), os.path.dirname(command)]
    private = [spec.service_dir for spec in specs]
    different = [spec for spec in specs if state.read_json(files[spec.service]) != specification(spec)]
    made = [path for path in folders + private if not os.path.isdir(path)] + [files[spec.service] for spec in different]
    if not check and made:
        for path in private:
            state.ensure_private(path)
        try:
            for path in folders:
                durable.make_dirs(path, 0o755, "ledger")
        except OSError as error:
            raise StorageError(f"Failed to create a directory ({error.strerror})", str(error.filename), "check owner and permissions") from error
        for spec in different:
            # 0600: the way to the stores and to Vault may stand in it
            state.write_json(files[spec.service], specification(spec), "lease")
    return {"changed": bool(made), "made": made, "config_dir": directory, "command_path": command, "python": sys.executable}
