# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The load driver: customers who sign up, log in, order, pay and have it shipped, all through the gateway."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from typing import Any

from .generate.world import name, skewed, text
from .layout import HOST, Home

#: Answers that are part of business: sold out, e-mail taken.
_REFUSALS = (409,)


def drive(home: Home, seconds: float, seed: int, threads: int) -> dict[str, Any]:
    """Run workflows for some seconds; counts, latencies in milliseconds and the first errors."""
    deadline = time.monotonic() + seconds
    workers = [_Customer(home, seed * 1000 + number, deadline) for number in range(max(1, threads))]
    crew = [threading.Thread(target=worker.run, daemon=True) for worker in workers]
    begun = time.monotonic()
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join(seconds + 60)
    spent = time.monotonic() - begun
    operations: dict[str, list[float]] = {}
    for worker in workers:
        for operation, times in worker.times.items():
            operations.setdefault(operation, []).extend(times)
    return {
        "seconds": round(spent, 2),
        "workflows": sum(worker.done for worker in workers),
        "requests": sum(map(len, operations.values())),
        "refused": sum(worker.refused for worker in workers),
        "errors": sum(worker.failed for worker in workers),
        "first_errors": [error for worker in workers for error in worker.errors][:5],
        "operations": {operation: _latency(times) for operation, times in sorted(operations.items())},
    }


def _latency(times: list[float]) -> dict[str, Any]:
    ordered = sorted(times)

    def at(share: float) -> float:
        return round(1000 * ordered[min(int(len(ordered) * share), len(ordered) - 1)], 1)

    return {"count": len(ordered), "p50_ms": at(0.5), "p95_ms": at(0.95), "max_ms": at(1)}


class _Failed(Exception):
    pass


class _Customer:
    """One thread, one connection, one customer after the other."""

    def __init__(self, home: Home, seed: int, deadline: float) -> None:
        self.times: dict[str, list[float]] = {}
        self.errors: list[str] = []
        self.done = self.refused = self.failed = 0
        self._rng = random.Random(seed)
        self._deadline = deadline
        self._port = home.port("gateway")
        self._connection = http.client.HTTPConnection(HOST, self._port, timeout=15)
        # Two runs with the same seed are two sets of customers.
        self._tag = f"{seed}.{time.time_ns():x}"

    def run(self) -> None:
        number = 0
        products = None
        while time.monotonic() < self._deadline:
            number += 1
            try:
                if products is None:
                    products = self._ask("catalog", "GET", "/catalog")
                self._workflow(number, int(products["first"]), int(products["last"]))
                self.done += 1
            except _Failed:
                # An ecosystem that is down is not asked a thousand times a second.
                time.sleep(0.05)
        self._connection.close()

    def _workflow(self, number: int, first: int, last: int) -> None:
        rng = self._rng
        email, password = f"c{number}.{self._tag}@Example.net", f"{rng.getrandbits(64):x}"
        profile = json.dumps({"about": text(rng, 5)})
        self._ask("signup", "POST", "/signup", {"email": email, "name": name(rng), "password": password, "profile": profile})
        token = self._ask("login", "POST", "/login", {"email": email, "password": password})["token"]
        for _order in range(1 + rng.randrange(3)):
            lines = [[first + skewed(rng, last - first + 1), rng.randrange(1, 4)] for _n in range(rng.randrange(1, 5))] if last else []
            for product, _quantity in lines[:2]:
                self._ask("browse", "GET", f"/products/{product}")
            order = self._ask("order", "POST", "/orders", {"token": token, "lines": lines, "note": text(rng, 4) if rng.random() < 0.3 else None})
            if order is None or rng.random() < 0.15:
                continue
            self._ask("pay", "POST", f"/orders/{order['id']}/pay", {"token": token, "card": f"tok_{rng.getrandbits(64):016x}"})
            if rng.random() < 0.8:
                self._ask("ship", "POST", f"/orders/{order['id']}/ship", {"token": token})
            self._ask("show", "POST", f"/orders/{order['id']}/show", {"token": token})
        if rng.random() < 0.4:
            self._ask("logout", "POST", "/logout", {"token": token})

    def _ask(self, operation: str, method: str, path: str, body: Any = None) -> Any:
        """The answer; None when it was refused for a good reason. Raises _Failed after noting an error."""
        begun = time.monotonic()
        try:
            self._connection.request(method, path, None if body is None else json.dumps(body), {"Content-Type": "application/json"})
            answer = self._connection.getresponse()
            status, result = answer.status, json.loads(answer.read())
        except (OSError, ValueError, http.client.HTTPException) as error:
            self._connection.close()
            status, result = 0, {"error": f"{type(error).__name__}: {error}"}
        self.times.setdefault(operation, []).append(time.monotonic() - begun)
        if status in _REFUSALS:
            self.refused += 1
            return None
        if not 200 <= status < 300:
            self.failed += 1
            if len(self.errors) < 5:
                self.errors.append(f"{operation}: {status} {result.get('error')}")
            raise _Failed
        return result
