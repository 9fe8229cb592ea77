# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Between a client and a real S3 store: it answers 503, breaks connections, cuts bodies short, loses answers and leaves names out of listings.

It is a stand-in for a bad network only; what it lets through comes from the store. A fault is {"method", "part" of the path or query, "times",
and one of "status": int, "reset": True, "cut": bytes of the body, "lose": True (the request is done, its answer lost), "hide": text in keys}.
"""

from __future__ import annotations

import http.client
import re
import socket
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_ERROR = "<?xml version='1.0'?><Error><Code>{code}</Code><Message>a fault of the test</Message></Error>"
_CODES = {500: "InternalError", 503: "SlowDown"}


class FaultyS3:
    """Listens on a loopback port and passes on to the store's plain port. Use it as a context manager."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.faults: list[dict[str, Any]] = []
        self.seen: list[str] = []
        self._guard = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_arguments: Any) -> None:
                return

            def _any(self) -> None:
                outer.handle(self)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _any

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])

    def __enter__(self) -> FaultyS3:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def add(self, times: int = 1, method: str = "", part: str = "", **fault: Any) -> None:
        """A fault for the next ``times`` requests that match."""
        self.faults.append({"left": times, "method": method, "part": part, **fault})

    def _pick(self, method: str, path: str) -> dict[str, Any]:
        with self._guard:
            self.seen.append(f"{method} {path}")
            for fault in self.faults:
                if fault["left"] and fault["method"] in ("", method) and fault["part"] in path:
                    fault["left"] -= 1
                    return fault
        return {}

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        fault = self._pick(request.command, request.path)
        expected = request.headers.get("Expect", "").lower() == "100-continue"
        if expected:
            request.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        if fault.get("reset"):
            return self._reset(request)
        if "status" in fault:
            return self._answer(request, fault["status"], [], _ERROR.format(code=_CODES[fault["status"]]).encode())
        connection = http.client.HTTPConnection("127.0.0.1", self.target, timeout=60)
        connection.putrequest(request.command, request.path, skip_host=True, skip_accept_encoding=True)
        for name, value in request.headers.items():
            if name.lower() != "expect":
                connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        data = answer.read()
        headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in ("content-length", "transfer-encoding", "connection", "date")]
        length = answer.getheader("Content-Length")
        connection.close()
        if fault.get("lose"):
            return self._reset(request)
        if "hide" in fault:
            data = re.sub(rb"<Contents>(?:(?!</Contents>).)*" + re.escape(fault["hide"].encode()) + rb"(?:(?!</Contents>).)*</Contents>", b"", data)
        return self._answer(request, answer.status, headers, data, fault.get("cut"), int(length or 0) if request.command == "HEAD" else None)

    @staticmethod
    def _answer(request: BaseHTTPRequestHandler, status: int, headers: list[tuple[str, str]], data: bytes, cut: int | None = None,
                length: int | None = None) -> None:
        request.send_response(status)
        for name, value in headers:
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(data) if length is None else length))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(data if cut is None else data[:cut])
        if cut is not None:
            FaultyS3._reset(request)

    @staticmethod
    def _reset(request: BaseHTTPRequestHandler) -> None:
        request.wfile.flush()
        request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.connection.close()
        request.close_connection = True
