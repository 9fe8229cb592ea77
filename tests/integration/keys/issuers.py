# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who vouches for a host in the tests: an issuer of JSON web tokens, and the API of a Kubernetes cluster that reviews them."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Issuer:
    """Signs tokens with ES256 (RFC 7515, RFC 7518)."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())

    @property
    def public(self) -> str:
        return self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    def token(self, subject: str, audience: str = "vault", lives: int = 600, **claims: Any) -> str:
        """A token from now on for ``lives`` seconds; negative: it ended long ago."""
        start = int(time.time()) - (7200 if lives < 0 else 0)
        body = {"iss": "https://issuer.example.org", "sub": subject, "aud": [audience], "iat": start, "nbf": start, "exp": start + abs(lives), **claims}
        signed = ".".join(_text(json.dumps(part).encode()) for part in ({"alg": "ES256", "typ": "JWT"}, body))
        first, second = utils.decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(SHA256())))
        return f"{signed}.{_text(first.to_bytes(32, 'big') + second.to_bytes(32, 'big'))}"

    def account(self, name: str, uid: str = "b2b1-uid", namespace: str = "shop") -> str:
        """The projected token of a pod's service account."""
        place = {"namespace": namespace, "serviceaccount": {"name": name, "uid": uid}}
        return self.token(f"system:serviceaccount:{namespace}:{name}", **{"kubernetes.io": place})


class Cluster:
    """A Kubernetes API as far as Vault asks it: POST /apis/authentication.k8s.io/v1/tokenreviews."""

    def __init__(self, url: str) -> None:
        self.url = url
        #: token -> service account it stands for: (namespace, name, uid)
        self.accounts: dict[str, tuple[str, str, str]] = {}

    def review(self, asked: dict[str, Any]) -> dict[str, Any]:
        spec = asked["spec"]
        found = self.accounts.get(spec["token"])
        status: dict[str, Any] = {"authenticated": False, "user": {}}
        if found:
            user = {"username": f"system:serviceaccount:{found[0]}:{found[1]}", "uid": found[2], "groups": ["system:serviceaccounts"]}
            status = {"authenticated": True, "user": user, "audiences": spec.get("audiences") or []}
        return {"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "metadata": {}, "spec": spec, "status": status}


@contextlib.contextmanager
def cluster() -> Iterator[Cluster]:
    """A cluster's API on a free loopback port."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_arguments: Any) -> None:
            return

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            known = self.path == "/apis/authentication.k8s.io/v1/tokenreviews" and self.headers.get("Authorization", "").startswith("Bearer ")
            body = json.dumps(api.review(asked) if known else {"kind": "Status", "status": "Failure"}).encode()
            self.send_response(201 if known else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    api = Cluster(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=60)
