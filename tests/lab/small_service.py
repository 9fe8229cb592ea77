# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A service as small as one can be: a real process that serves a directory over HTTP and says whether it is well.

usage: small_service.py start|stop|status|serve FOLDER [ADDRESS:]PORT [SECONDS] [URL…]

It listens on 127.0.0.1 unless there is an address. It does not start unless every URL answers 200: what it requires must be usable then.
FOLDER/data is its store. GET /health is 200 when FOLDER/data/state says "good"; GET /audit tells how many items there are and
whether the file `count` agrees. FOLDER/pid holds the process id. Standard library only, so that it starts at once; with SECONDS it answers 503
until so much time has passed since.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

#: Seconds after which starting or stopping counts as hung.
LIMIT = 120


class Handler(BaseHTTPRequestHandler):
    folder = ""
    ready = 0.0

    def do_GET(self) -> None:
        if time.monotonic() < self.ready:
            return self.answer(503, {"state": "starting"})
        data = os.path.join(self.folder, "data")
        try:
            with open(os.path.join(data, "state"), encoding="utf-8") as handle:
                state = handle.read().strip()
            with open(os.path.join(data, "count"), encoding="utf-8") as handle:
                count = int(handle.read())
            items = len(os.listdir(os.path.join(data, "items")))
        except (OSError, ValueError) as error:
            return self.answer(503, {"state": f"store: {error}"})
        if self.path == "/health":
            return self.answer(200 if state == "good" else 503, {"state": state})
        return self.answer(200, {"items": items, "missing": count - items})

    def answer(self, status: int, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_words: Any) -> None:
        """Nobody reads it."""


class Server(HTTPServer):
    #: A port that something else listens on must be noticed.
    allow_reuse_port = False

    def server_bind(self) -> None:
        """Without asking the resolver for our own name."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "localhost", self.server_address[1]


def pid_of(folder: str) -> int:
    """The process of the service, 0 when it does not run."""
    try:
        with open(os.path.join(folder, "pid"), encoding="ascii") as handle:
            pid = int(handle.read())
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as handle:
            if handle.read().rsplit(")", 1)[1].split()[0] == "Z":
                return 0
        with open(f"/proc/{pid}/cmdline", "rb") as handle:
            return pid if os.fsencode(folder) in handle.read() else 0
    except (OSError, ValueError):
        return 0


def where(listen: str) -> tuple[str, int]:
    """Address and port of [ADDRESS:]PORT."""
    address, _colon, port = listen.rpartition(":")
    return address or "127.0.0.1", int(port)


def serve(folder: str, listen: str, seconds: str = "0") -> int:
    Handler.ready = time.monotonic() + float(seconds)
    try:
        server = Server(where(listen), Handler)
    except OSError as error:
        print(f"cannot listen on {where(listen)[0]}:{where(listen)[1]}: {error.strerror}", file=sys.stderr)
        return 1
    Handler.folder = folder
    with open(os.path.join(folder, "pid.new"), "w", encoding="ascii") as handle:
        handle.write(str(os.getpid()))
    os.rename(os.path.join(folder, "pid.new"), os.path.join(folder, "pid"))
    server.serve_forever()
    return 0


def refusal(url: str) -> str:
    """Why what is required is not usable; "" when it is."""
    address, port = where(url.removeprefix("http://").partition("/")[0])
    connection = HTTPConnection(address, port, timeout=LIMIT)
    try:
        connection.request("GET", "/" + url.removeprefix("http://").partition("/")[2])
        status = connection.getresponse().status
        return "" if status == 200 else f"{url} answers {status}"
    except OSError as error:
        return f"{url}: {error}"
    finally:
        connection.close()


def start(folder: str, listen: str, more: list[str]) -> int:
    seconds, needs = [one for one in more if "://" not in one], [one for one in more if "://" in one]
    if pid_of(folder):
        return 0
    for url in needs:
        if found := refusal(url):
            print(f"what it requires is not usable: {found}", file=sys.stderr)
            return 1
    with open(os.path.join(folder, "log"), "wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, "serve", folder, listen, *seconds], cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,
        )
    deadline = time.monotonic() + LIMIT
    while pid_of(folder) != child.pid:
        if child.poll() is not None or time.monotonic() > deadline:
            with open(os.path.join(folder, "log"), encoding="utf-8", errors="replace") as handle:
                print(handle.read().strip() or "did not start", file=sys.stderr)
            return 1
        time.sleep(0.01)
    return 0


def stop(folder: str) -> int:
    deadline = time.monotonic() + LIMIT
    while pid := pid_of(folder):
        if time.monotonic() > deadline:
            print(f"process {pid} does not end", file=sys.stderr)
            return 1
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it ended by itself
        time.sleep(0.01)
    return 0


def main(verb: str, folder: str, listen: str, *more: str) -> int:
    if verb == "serve":
        return serve(folder, listen, *more)
    if verb == "start":
        return start(folder, listen, [*more])
    if verb == "stop":
        return stop(folder)
    return 0 if pid_of(folder) else 3


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
