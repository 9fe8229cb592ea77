# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start and stop the shop's six services as detached processes."""

from __future__ import annotations

import http.client
import json
import signal
import sys
from pathlib import Path

from . import processes
from .layout import HOST, REQUIRES, Home, ShopError

START_SECONDS = 30.0
STOP_SECONDS = 5.0
HEALTHY_SECONDS = 30.0

_SERVE = Path(__file__).resolve().parent.parent / "serve.py"


def running(home: Home, service: str) -> bool:
    """Whether a service's process lives and listens."""
    return processes.find(home, service) is not None and processes.listening(home.port(service))


def start(home: Home, service: str) -> bool:
    """Start a service and wait until it listens (healthy or not); False if it did already."""
    with processes.locked(home, service):
        process = processes.find(home, service)
        started = process is None
        if process is None:
            if processes.listening(home.port(service)):
                raise ShopError(f"the port of {service} is in use: {HOST}:{home.port(service)}; stop what listens there")
            # Not dropped from the start: the interpreter may be closed to the shop's user, so the service drops once it has imported all.
            process = processes.spawn(home, service, [sys.executable, "-s", str(_SERVE), service, "--home", str(home.path)], drop=False)
        processes.await_ready(home, service, process, lambda: processes.listening(home.port(service)), START_SECONDS)
        return started


def stop(home: Home, service: str) -> bool:
    """Stop a service and wait for its end; False if it was not running."""
    with processes.locked(home, service):
        process = processes.find(home, service)
        if process is not None and not any(processes.end(process, how, STOP_SECONDS) for how in (signal.SIGTERM, signal.SIGKILL)):
            raise ShopError(f"{service} does not end: pid {process.pid}; see {home.log(service)}")
        processes.forget(home, service)
        return process is not None


def health(home: Home, service: str) -> str:
    """Empty if the service is healthy, else the reason."""
    connection = http.client.HTTPConnection(HOST, home.port(service), timeout=10)
    try:
        connection.request("GET", "/health")
        answer = connection.getresponse()
        body = json.loads(answer.read())
        return "" if answer.status == 200 else str(body.get("reason"))
    except (OSError, ValueError, http.client.HTTPException) as error:
        return f"no answer ({error})"
    finally:
        connection.close()


def await_healthy(home: Home, services: tuple[str, ...] = tuple(REQUIRES)) -> None:
    """Wait until all services are healthy; raises with the first reason when they do not become it."""
    reasons: dict[str, str] = {}

    def healthy() -> bool:
        reasons.clear()
        reasons.update((service, reason) for service in services if (reason := health(home, service)))
        return not reasons

    if not processes.wait_for(healthy, HEALTHY_SECONDS):
        service, reason = next(iter(reasons.items()))
        raise ShopError(f"{service} is not healthy: {reason}; see {home.log(service)}")
