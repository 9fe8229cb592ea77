# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""What a process belongs to by its control group: a unit of systemd, a container and what its labels say."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
from typing import Any, Iterable

from ..checks.command import run_argv
from ..errors import CheckError

_CONTAINER = re.compile(r"(?:^|[-/])([0-9a-f]{64})(?:\.scope)?(?:/|$)")
_ENGINES = ("/run/docker.sock", "/var/run/docker.sock", "/run/podman/podman.sock")
#: Where the kubelet links each container's log: POD_NAMESPACE_CONTAINER-ID.log.
_LOGS = "/var/log/containers"
#: Labels that name what a service may be called in the catalog.
NAMES = ("com.docker.compose.service", "app.kubernetes.io/name", "io.kubernetes.container.name")
_KEPT = (*NAMES, "com.docker.compose.project", "io.kubernetes.pod.name", "io.kubernetes.pod.namespace")
_LIMIT = 10.0


def unit_of(cgroup: str) -> str:
    """The innermost service of systemd in /proc/PID/cgroup; "" for none. A user's manager is not one."""
    for line in cgroup.splitlines():
        controllers, _colon, path = line.partition(":")[2].partition(":")
        if controllers in ("", "name=systemd"):
            names = [part for part in path.split("/") if part.endswith(".service") and not part.startswith("user@")]
            if names:
                return names[-1]
    return ""


def container_of(cgroup: str) -> str:
    """The id of a container (docker, podman, containerd, CRI-O); "" for none."""
    found = filter(None, map(_CONTAINER.search, cgroup.splitlines()))
    return next((one.group(1) for one in found), "")


def full(name: str) -> str:
    """A unit's name with its suffix."""
    return name if "." in name else f"{name}.service"


def declared(names: Iterable[str]) -> tuple[dict[str, set[str]], str]:
    """(declared unit -> all names it goes by, why systemd was not asked). An alias is declared, and the cgroup shows the real name."""
    found = {name: {full(name)} for name in names}
    if not found:
        return found, ""
    if not os.path.isdir("/run/systemd/system"):
        return found, "systemd does not run here"
    try:
        status, output, _errors = run_argv(["systemctl", "show", "--property=Id,Names", "--", *map(full, found)], _LIMIT)
    except CheckError as error:
        return found, f"systemctl {error.what}"
    if status != 0:
        return found, f"systemctl show ended with {status}"
    for name, block in zip(found, output.strip().split("\n\n")):
        for line in block.splitlines():
            found[name].update(line.partition("=")[2].split())
    return found, ""


class _Local(http.client.HTTPConnection):
    """HTTP over the socket of a container engine."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_LIMIT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_LIMIT)
        self.sock.connect(self._path)


def labels(containers: Iterable[str], engines: Iterable[str] = _ENGINES, logs: str = _LOGS) -> tuple[dict[str, dict[str, str]], str]:
    """(container -> labels that say what it is, why the others are not known)."""
    wanted = set(containers)
    if not wanted:
        return {}, ""
    found = _from_logs(wanted, logs)
    reason = "no socket of docker or podman, and no logs of a kubelet"
    for path in dict.fromkeys(map(os.path.realpath, engines)):
        if not os.path.exists(path):
            continue
        for container in sorted(wanted - set(found)):
            try:
                told = _inspected(path, container)
            except (OSError, ValueError, http.client.HTTPException) as error:
                reason = f"{path}: {getattr(error, 'strerror', None) or type(error).__name__}"
                break
            if told is not None:
                found[container] = {key: str(value) for key, value in told.items() if key in _KEPT}
    return found, reason if wanted - set(found) else ""


def _inspected(path: str, container: str) -> dict[str, Any] | None:
    """The labels of a container; None when this engine does not know it."""
    connection = _Local(path)
    try:
        connection.request("GET", f"/containers/{container}/json")
        answer = connection.getresponse()
        body = answer.read(4 << 20)
    finally:
        connection.close()
    if answer.status != 200:
        return None
    return dict((json.loads(body).get("Config") or {}).get("Labels") or {})


def _from_logs(containers: set[str], logs: str) -> dict[str, dict[str, str]]:
    try:
        names = os.listdir(logs)
    except OSError:
        return {}
    found = {}
    for name in names:
        parts = re.fullmatch(r"(.+)_(.+)_(.+)-([0-9a-f]{64})\.log", name)
        if parts and parts.group(4) in containers:
            found[parts.group(4)] = {
                "io.kubernetes.pod.name": parts.group(1), "io.kubernetes.pod.namespace": parts.group(2), "io.kubernetes.container.name": parts.group(3),
            }
    return found
