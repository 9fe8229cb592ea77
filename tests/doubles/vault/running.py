# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test code: start a Vault server for tests (the double, a real ``vault`` or ``bao`` in dev mode, or the one at VAULT_ADDR).

``kinds()`` says what there is on this machine; a suite parametrised by it runs on the double and on each real one.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

WAIT = 30.0


@dataclass
class Tls:
    """TLS of a double; a real server in dev mode makes a certificate of its own instead and asks for none of the client's.

    certificate, key, ca: files. client_ca: authorities whose client certificates reach the auth methods. ask: refuse whoever has none.
    """

    certificate: str
    key: str
    ca: str
    client_ca: str = ""
    ask: bool = False

    def arguments(self) -> list[str]:
        asked = ["--client-ca", self.client_ca, *(["--ask-certificate"] if self.ask else [])] if self.client_ca else []
        return ["--cert", self.certificate, "--key", self.key, *asked]


@dataclass
class Server:
    """A running server. unseal_key: None where it is not ours to seal. double: it has the controls of server.py."""

    url: str
    root_token: str
    unseal_key: str | None = None
    double: bool = False
    ca_cert: str | None = None
    namespace: str = ""
    client: tuple[str, str] | None = None
    _undo: list[tuple[str, str]] = field(default_factory=list)

    def ask(self, method: str, path: str, body: Any = None, token: str | None = None) -> tuple[int, dict[str, Any]]:
        """One raw request as root (or with ``token``): (status, JSON answer)."""
        return self._send(method, f"/v1/{path}", body, self.root_token if token is None else token)

    def _send(self, method: str, path: str, body: Any, token: str) -> tuple[int, dict[str, Any]]:
        data = None if body is None else json.dumps(body).encode()
        headers = {"X-Vault-Token": token, "X-Vault-Namespace": self.namespace, "X-Vault-Request": "true", "Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data=data, method=method, headers={k: v for k, v in headers.items() if v})
        context = ssl.create_default_context(cafile=self.ca_cert) if self.ca_cert else None
        if context is not None:
            context.check_hostname = False  # the tests' own channel: some servers are made with a certificate that does not fit
            if self.client:
                context.load_cert_chain(*self.client)
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), *([urllib.request.HTTPSHandler(context=context)] if context else []),
        )
        try:
            with opener.open(request, timeout=WAIT) as response:
                return response.status, json.loads(response.read() or b"{}")
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read() or b"{}")

    def must(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """As ``ask``; AssertionError unless it worked."""
        status, answer = self.ask(method, path, body)
        assert status < 300, (method, path, status, answer)
        return answer

    def mount(self, kind: str) -> str:
        """A fresh mount of "transit" or of an auth method; returns its path."""
        name = f"lifeboat-test-{secrets.token_hex(4)}"
        path = f"sys/mounts/{name}" if kind == "transit" else f"sys/auth/{name}"
        self.must("POST", path, {"type": kind})
        self._undo.append(("DELETE", path))
        return name

    def policy(self, text: str) -> str:
        """Write a policy under a fresh name."""
        name = f"lifeboat-test-{secrets.token_hex(4)}"
        self.must("POST", f"sys/policies/acl/{name}", {"policy": text})
        self._undo.append(("DELETE", f"sys/policies/acl/{name}"))
        return name

    def token(self, *policies: str, **options: Any) -> str:
        """A token with these policies (texts)."""
        names = [self.policy(text) for text in policies]
        body = {"policies": names, "no_default_policy": True, "ttl": "1h", **options}
        return str(self.must("POST", "auth/token/create", body)["auth"]["client_token"])

    def seal(self) -> None:
        self.must("POST", "sys/seal")

    def unseal(self) -> None:
        self.must("POST", "sys/unseal", {"key": self.unseal_key})
        deadline = time.monotonic() + WAIT
        while self.ask("GET", "sys/health")[0] != 200:
            assert time.monotonic() < deadline, "not active in time after unseal"
            time.sleep(0.05)

    def inside(self) -> Server | None:
        """This server in a fresh namespace; None where the server has none (Vault's community edition)."""
        namespace = f"lifeboat-test-{secrets.token_hex(4)}"
        status, answer = self.ask("POST", f"sys/namespaces/{namespace}", {})
        if status in (400, 404, 405):
            return None
        assert status == 200, (status, answer)
        self._undo.append(("DELETE", f"sys/namespaces/{namespace}"))
        return replace(self, namespace=f"{self.namespace}/{namespace}".strip("/"), _undo=[])

    def clean(self) -> None:
        for method, path in reversed(self._undo):
            self.ask(method, path)
        self._undo.clear()

    # controls of the double
    def faults(self, *faults: dict[str, Any]) -> None:
        self._send("POST", "/double/faults", list(faults), "")

    def state(self, state: str) -> None:
        self._send("POST", "/double/state", state, "")

    def seen(self) -> list[tuple[str, str, int]]:
        return [tuple(request) for request in self._send("GET", "/double/requests", None, "")[1]["result"]]

    def unsupported(self) -> list[str]:
        return list(self._send("GET", "/double/unsupported", None, "")[1]["result"])


def kinds() -> list[str]:
    """What a contract can run on here: always the double; a real server where there is one."""
    found = ["double", *(name for name in ("vault", "bao") if shutil.which(name))]
    return [*found, "VAULT_ADDR"] if os.environ.get("VAULT_ADDR") else found


def own_kinds() -> list[str]:
    """Those that a test may also seal."""
    return [kind for kind in kinds() if kind != "VAULT_ADDR"]


@contextlib.contextmanager
def start(kind: str, tls: Tls | None = None) -> Iterator[Server]:
    """Run a server of ``kind`` for the time of the context, with https if ``tls``."""
    if kind == "VAULT_ADDR":
        assert os.environ.get("VAULT_TOKEN"), "VAULT_ADDR is set: VAULT_TOKEN must hold a token that may mount engines and write policies"
        server = Server(
            os.environ["VAULT_ADDR"].rstrip("/"), os.environ["VAULT_TOKEN"], ca_cert=os.environ.get("VAULT_CACERT"),
            namespace=os.environ.get("VAULT_NAMESPACE", ""),
        )
        try:
            yield server
        finally:
            server.clean()
        return
    with contextlib.ExitStack() as stack:
        if kind == "double":
            command = [sys.executable, str(Path(__file__).with_name("server.py")), *(tls.arguments() if tls else [])]
            process = stack.enter_context(_running(command, dict(os.environ)))
            assert process.stdout
            found = json.loads(process.stdout.readline())
            server = Server(found["url"], found["root_token"], found["unseal_key"], double=True, ca_cert=tls.ca if tls else None)
        else:
            home = stack.enter_context(tempfile.TemporaryDirectory(prefix="lifeboat-vault-"))
            server = _start_dev(stack, kind, home, tls is not None)
        yield server
        if server.double:
            assert server.unsupported() == [], "a test used what the double does not support"


def _start_dev(stack: contextlib.ExitStack, program: str, home: str, tls: bool) -> Server:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    root = "root-" + secrets.token_hex(12)
    command = [program, "server", "-dev", f"-dev-root-token-id={root}", f"-dev-listen-address=127.0.0.1:{port}", "-dev-no-store-token"]
    certificates = Path(home) / "tls"
    certificates.mkdir()
    command += ["-dev-tls", f"-dev-tls-cert-dir={certificates}"] if tls else []
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("VAULT_", "BAO_"))}
    process = stack.enter_context(_running(command, {**environment, "HOME": home, "SKIP_SETCAP": "1"}))
    unseal: list[str] = []
    ready = threading.Event()

    def read() -> None:
        assert process.stdout
        for line in process.stdout:
            match = re.search(r"Unseal Key: (\S+)", line)
            if match:
                unseal.append(match.group(1))
                ready.set()
        ready.set()

    threading.Thread(target=read, daemon=True).start()
    assert ready.wait(WAIT) and unseal, f"{program} did not print its unseal key"
    authority = next((str(path) for path in certificates.glob("*-ca.pem")), None) if tls else None
    server = Server(f"{'https' if tls else 'http'}://127.0.0.1:{port}", root, unseal[0], ca_cert=authority)
    deadline = time.monotonic() + WAIT
    while True:
        with contextlib.suppress(OSError):
            if server.ask("GET", "sys/health")[0] == 200:
                return server
        assert time.monotonic() < deadline and process.poll() is None, f"{program} did not come up"
        time.sleep(0.05)


@contextlib.contextmanager
def _running(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
    try:
        yield process
    finally:
        assert process.stdin
        process.stdin.close()
        process.terminate()
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=60)
        if process.stdout:
            process.stdout.close()
