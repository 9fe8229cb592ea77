# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A strict protocol double of Vault's HTTP API. TEST CODE: it protects nothing and keeps everything in memory.

    python server.py [--cert FILE --key FILE [--client-ca FILE [--ask-certificate]]]

prints one line of JSON ({"url", "root_token", "unseal_key"}) and serves on a free loopback port until its standard
input closes. What it does not support it refuses with 501 and remembers (GET /double/unsupported), so that no test
passes by a call that does nothing. POST /double/faults takes a list of faults for the next requests below /v1/:
{"status": 503, "errors": […], "headers": {…}} answers so, {"drop": true} closes the connection, {"stall": seconds} answers
late, {"truncate": true} cuts the body short; {"path": text} restricts a fault to paths that contain it.
GET /double/requests lists what was asked: [[method, path, status], …]. POST /double/state sets one of the states that
sys/health knows.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from core import Core
from shared import Refused, Unsupported

BODY_LIMIT = 32 << 20


class Double(ThreadingHTTPServer):
    """The server with its core and the tests' controls."""

    daemon_threads = True

    # a client that gives up on a stalled answer is part of the tests, not news
    def handle_error(self, request: Any, client_address: Any) -> None:
        return

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.core = Core()
        self.faults: list[dict[str, Any]] = []
        self.requests: list[tuple[str, str, int]] = []
        self.unsupported: list[str] = []
        self.controls = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Double

    def log_message(self, *_arguments: Any) -> None:
        return

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(length) if length <= BODY_LIMIT else b""
        path, _mark, query = self.path.partition("?")
        if path.startswith("/double/"):
            self._control(path[len("/double/"):], raw)
            return
        if not path.startswith("/v1/"):
            self._answer(404, {"errors": []})
            return
        path = path[len("/v1/"):]
        fault = self._fault(path)
        if fault.get("drop"):
            self._note(path, 0)
            self.close_connection = True
            return
        if fault.get("stall"):
            # waits on an event nobody sets: a bounded delay
            threading.Event().wait(float(fault["stall"]))
        method = {"PUT": "POST"}.get(self.command, self.command)
        if method == "GET" and query == "list=true":
            method, query = "LIST", ""
        status, answer = self._result(method, path, query, raw, length) if "status" not in fault else (
            int(fault["status"]), {"errors": fault.get("errors", [])},
        )
        self._note(path, status)
        self._answer(status, answer, cut=bool(fault.get("truncate")), headers=fault.get("headers"))

    do_GET = do_POST = do_PUT = do_DELETE = do_LIST = do_HEAD = do_PATCH = _serve

    def _result(self, method: str, path: str, query: str, raw: bytes, length: int) -> tuple[int, dict[str, Any] | None]:
        if length > BODY_LIMIT:
            return 413, {"errors": ["http: request body too large"]}
        try:
            if query:
                raise Unsupported(f"query {query!r}")
            for header in ("X-Vault-Wrap-TTL", "X-Vault-MFA", "X-Vault-Policy-Override"):
                if self.headers.get(header):
                    raise Unsupported(f"header {header}")
            try:
                body = json.loads(raw) if raw else {}
            except ValueError:
                return 400, {"errors": ["error parsing JSON"]}
            if not isinstance(body, dict):
                return 400, {"errors": ["error parsing JSON"]}
            return self.server.core.handle(
                method, path, body, self.headers.get("X-Vault-Token") or "", self.headers.get("X-Vault-Namespace") or "", self._certificate(),
            )
        except Refused as refused:
            return refused.status, {"errors": refused.errors} if refused.data is None else refused.data
        except Unsupported as unsupported:
            text = f"not supported by the test double: {method} /v1/{path}: {unsupported}"
            with self.server.controls:
                self.server.unsupported.append(text)
            print(text, file=sys.stderr, flush=True)
            return 501, {"errors": [text]}

    def _fault(self, path: str) -> dict[str, Any]:
        with self.server.controls:
            for fault in self.server.faults:
                if fault.get("path", "") in path:
                    self.server.faults.remove(fault)
                    return fault
        return {}

    def _note(self, path: str, status: int) -> None:
        with self.server.controls:
            self.server.requests.append((self.command, path, status))

    def _control(self, path: str, raw: bytes) -> None:
        server = self.server
        with server.controls:
            if path == "faults" and self.command == "POST":
                server.faults = json.loads(raw)
                result: Any = None
            elif path == "state" and self.command == "POST":
                server.core.state = json.loads(raw)
                result = None
            else:
                result = {"requests": list(server.requests), "unsupported": list(server.unsupported), "faults": list(server.faults)}[path]
        self._answer(200, {"result": result})

    def _certificate(self) -> bytes | None:
        """The client's certificate, DER."""
        return self.connection.getpeercert(binary_form=True) if isinstance(self.connection, ssl.SSLSocket) else None

    def _answer(self, status: int, answer: dict[str, Any] | None, cut: bool = False, headers: dict[str, str] | None = None) -> None:
        body = b"" if answer is None else json.dumps(answer).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Cache-Control", "no-store")
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self.close_connection = True


def main() -> None:
    parser = argparse.ArgumentParser(description="strict test double of Vault's HTTP API; not for anything but tests")
    parser.add_argument("--cert")
    parser.add_argument("--key")
    parser.add_argument("--client-ca", help="authorities whose client certificates reach the auth methods")
    parser.add_argument("--ask-certificate", action="store_true", help="refuse connections without one")
    arguments = parser.parse_args()
    server = Double()
    if arguments.cert:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(arguments.cert, arguments.key)
        if arguments.client_ca:
            context.load_verify_locations(arguments.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED if arguments.ask_certificate else ssl.CERT_OPTIONAL
        # the handshake belongs to the connection's own thread: a client that does not come to it must not hold up the others
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    scheme = "https" if arguments.cert else "http"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(json.dumps({
        "url": f"{scheme}://127.0.0.1:{server.server_address[1]}", "root_token": server.core.root_token, "unseal_key": server.core.unseal_key,
    }), flush=True)
    # lives as long as whoever started it holds the other end: no stray process when a test run is killed
    with contextlib.suppress(OSError, KeyboardInterrupt):
        sys.stdin.buffer.read()
    server.shutdown()


if __name__ == "__main__":
    main()
