# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""What all commands need: the services of this host, and an answer."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

from ..errors import ConfigError
from ..spec import Spec, check_name


def services(config: str) -> list[str]:
    """The services that have a file."""
    directory = os.path.join(config, "services")
    try:
        return sorted(name[:-5] for name in os.listdir(directory) if name.endswith(".json"))
    except OSError as error:
        raise ConfigError(f"cannot list the services of this host ({error.strerror})", directory, "run the bootstrap playbook, or set --config") from error


def load(options: argparse.Namespace, service: str) -> Spec:
    """The specification of one service, with the private keys that were named in the call."""
    path = os.path.join(options.config, "services", check_name("service", service) + ".json")
    try:
        with open(path, encoding="utf-8") as handle:
            data = json.load(handle)
        if not isinstance(data, dict):
            raise ValueError("not an object")
    except FileNotFoundError as error:
        raise ConfigError("no such service on this host", path, f"known: {', '.join(services(options.config)) or 'none'}") from error
    except OSError as error:
        raise ConfigError(f"cannot read a service's file ({error.strerror})", path, "run as its owner or as root") from error
    except ValueError as error:
        raise ConfigError(f"a service's file is no JSON object ({error})", path, "run the bootstrap playbook again") from error
    if getattr(options, "keys", None):
        if (data.get("keys") or {}).get("provider") != "file":
            raise ConfigError("--keys is for the key provider file", f"service {service}", "give Vault's credentials as its provider expects them")
        data["keys"] = {**data["keys"], "private_path": os.path.abspath(options.keys)}
    if getattr(options, "escrow_key", None):
        data["keys"] = {**data["keys"], "escrow_key": os.path.abspath(options.escrow_key)}
    return Spec.from_dict(data)


def chosen(options: argparse.Namespace) -> list[Spec]:
    """The asked service, or all of this host."""
    return [load(options, name) for name in ([options.service] if options.service else services(options.config))]


def answer(options: argparse.Namespace, value: Any, shown: str) -> None:
    """Print the JSON or the text."""
    sys.stdout.write((json.dumps(value, indent=2, sort_keys=True) if options.json else shown) + "\n")
