# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all services of the shop are made of: an HTTP server, routes, JSON, a connection pool, calls to each other, health."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import importlib
import json
import re
import sys
import threading
import time
import traceback
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Callable, ClassVar, Iterator

from ..layout import HOST, REQUIRES, Home

# loaded before the process gives up the rights it may need to read it
importlib.import_module("encodings.idna")

Answer = tuple[int, Any]

#: Seconds a service waits for another before it calls it absent; below what a probe waits for this one.
PEER_SECONDS = 4.0
_LARGEST_BODY = 1 << 20
#: What drivers raise when their store is not there, as opposed to a fault of ours.
_STORE_ERRORS = ("OperationalError", "InterfaceError", "ConnectionError", "TimeoutError")


class Refused(Exception):
    """A request that is answered with an error: status and reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def route(method: str, pattern: str) -> Callable[[Callable[..., Answer]], Callable[..., Answer]]:
    """Mark a method of a service as the handler of a path; groups of the pattern become its arguments."""

    def mark(function: Callable[..., Answer]) -> Callable[..., Answer]:
        marked: Any = function
        marked.route = (method, re.compile(pattern + r"\Z"))
        return function

    return mark


class BaseService:
    """A service of the shop. Subclasses add routes, check_store() and audit()."""

    #: The longest a health check of a requirement may take.
    health_seconds: ClassVar[float] = 2.0

    def __init__(self, home: Home, name: str, credentials: dict[str, Any]) -> None:
        self.home = home
        self.name = name
        self.credentials = credentials
        marked = [getattr(self, item) for item in dir(type(self)) if hasattr(getattr(type(self), item), "route")]
        self.routes: list[tuple[str, re.Pattern[str], Callable[..., Answer]]] = [(*function.route, function) for function in marked]

    def check_store(self) -> None:
        """Raise when the service's own store cannot be worked with."""

    def audit(self) -> dict[str, Any]:
        """Facts about the truth of the data, cheap enough to ask at any time; "ok" says whether all of it holds."""
        return {"ok": True}

    @route("GET", "/health")
    def _health(self, _body: Any) -> Answer:
        reason = self.failing()
        return (503, {"service": self.name, "status": "failing", "reason": reason}) if reason else (200, {"service": self.name, "status": "ok"})

    @route("GET", "/audit")
    def _audit(self, _body: Any) -> Answer:
        return 200, self.audit()

    def failing(self) -> str:
        """Why this service cannot work, or nothing."""
        try:
            self.check_store()
        except Exception as error:
            return f"store: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        for peer in REQUIRES[self.name]:
            try:
                status, body = self.call(peer, "GET", "/health", seconds=self.health_seconds)
            except Refused as error:
                return error.reason
            if status != 200:
                return f"{peer}: {body.get('reason', status) if isinstance(body, dict) else status}"
        return ""

    def call(self, peer: str, method: str, path: str, body: Any = None, seconds: float = PEER_SECONDS) -> Answer:
        """Ask another service; 503 when it does not answer."""
        connection = http.client.HTTPConnection(HOST, self.home.port(peer), timeout=seconds)
        try:
            connection.request(method, path, None if body is None else json.dumps(body, default=_plain), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or b"null")
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise Refused(503, f"{peer} does not answer: {type(error).__name__}") from error
        finally:
            connection.close()

    def ask(self, peer: str, method: str, path: str, body: Any = None) -> Any:
        """As call(), for when anything but success ends the request too."""
        status, answer = self.call(peer, method, path, body)
        if status >= 400:
            raise Refused(status, f"{peer}: {answer.get('error', status) if isinstance(answer, dict) else status}")
        return answer

    def bind(self) -> ThreadingHTTPServer:
        """A server that listens already and serves once told to."""
        return _Server((HOST, self.home.port(self.name)), self)


class DatabaseService(BaseService):
    """A service with a PostgreSQL database of its own name."""

    #: A query that works only on a database with this service's tables.
    probe: ClassVar[str]

    def __init__(self, home: Home, name: str, credentials: dict[str, Any]) -> None:
        super().__init__(home, name, credentials)
        import psycopg2
        import psycopg2.extras

        self._driver = psycopg2
        self._dsn = {**home.dsn(name, f"{name}_app"), "connect_timeout": 2, "application_name": f"shop-{name}", "options": "-c statement_timeout=8s"}
        self._idle: list[Any] = []
        self._guard = threading.Lock()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Any]:
        """A cursor in a transaction that commits at the end. Connections are kept, and replaced when the server was."""
        connection = self._take()
        try:
            with connection, connection.cursor() as cursor:
                yield cursor
        except (self._driver.OperationalError, self._driver.InterfaceError):
            connection.close()
            raise
        finally:
            if connection.closed:
                connection = None
            else:
                with self._guard:
                    self._idle.append(connection)

    def _take(self) -> Any:
        while True:
            with self._guard:
                spare = self._idle[-1:]
                del self._idle[-1:]
            if not spare:
                return self._driver.connect(**self._dsn)
            connection = spare[0]
            try:
                with connection, connection.cursor() as cursor:
                    cursor.execute("SELECT 1")
                return connection
            except self._driver.Error:
                connection.close()

    def check_store(self) -> None:
        with self.transaction() as cursor:
            cursor.execute(self.probe)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], service: BaseService) -> None:
        self.service = service
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that went away is no news.
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            traceback.print_exc()


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = 60
    disable_nagle_algorithm = True
    wbufsize = -1

    def _serve(self) -> None:
        service = self.server.service
        begun = time.monotonic()
        try:
            status, body = self._answer(service)
        except Refused as error:
            status, body = error.status, {"error": error.reason}
        except Exception as error:
            kind = type(error).__name__
            status, body = 503 if kind in _STORE_ERRORS else 500, {"error": kind}
            print(f"{self.command} {self.path}: {kind}: {' '.join(str(error).split())}", flush=True)
        data = json.dumps(body, default=_plain).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()
        if status >= 500:
            print(f"{time.strftime('%H:%M:%S')} {self.command} {self.path} {status} {(time.monotonic() - begun) * 1000:.0f} ms {data[:200]!r}", flush=True)

    do_GET = do_POST = do_DELETE = _serve

    def _answer(self, service: BaseService) -> Answer:
        try:
            length = int(self.headers.get("Content-Length") or 0)
        except ValueError:
            length = -1
        if not 0 <= length <= _LARGEST_BODY:
            self.close_connection = True
            raise Refused(413, "body too large")
        raw = self.rfile.read(length)
        try:
            body = json.loads(raw, parse_float=Decimal) if raw else {}
        except ValueError:
            raise Refused(400, "not JSON") from None
        for method, pattern, function in service.routes:
            match = pattern.match(self.path)
            if match and method == self.command:
                try:
                    return function(body, *match.groups())
                except KeyError as error:
                    raise Refused(400, f"missing: {error.args[0]}") from None
        raise Refused(404, "no such path")

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


def digest(text: str, salt: bytes) -> bytes:
    """A password's hash; cheap, for this is a demo."""
    return hashlib.scrypt(text.encode(), salt=salt, n=1024, r=8, p=1)


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, bytes):
        return value.hex()
    return str(value)
