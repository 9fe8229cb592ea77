# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real S3 store on loopback, SeaweedFS, with TLS from a CA made for it and one identity per role."""

from __future__ import annotations

import base64
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from typing import Any

from . import processes, tls

#: Identity -> (access key, secret key, actions as the store names them; {bucket} stands for the test's bucket).
OWNER = ("ownerownerowner", "owner-secret-canary-1")


class Seaweed:
    """One server with all its data in a private directory. Use it as a context manager."""

    def __init__(self, roles: dict[str, list[str]] | None = None, address: str = "127.0.0.1") -> None:
        """roles: name of a role that may be assumed -> the buckets in which it may do everything. address: where it listens."""
        self.address = address
        self.roles = roles or {}
        self.home = processes.private_dir("s3", "/var/tmp")
        self.authority = tls.Authority(self.home)
        self.process: subprocess.Popen[bytes] | None = None
        self.ports = _ports(5)
        self.identities: list[dict[str, Any]] = [_identity("owner", *OWNER, ["Admin", "Read", "Write", "List", "Tagging"])]

    @property
    def endpoint(self) -> str:
        return f"https://{self.address}:{self.ports[4]}"

    @property
    def ca_file(self) -> str:
        return self.authority.ca_file

    def __enter__(self) -> Seaweed:
        try:
            return self.start()
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_exception: object) -> None:
        self.stop()
        processes.remove(self.home)

    def start(self) -> Seaweed:
        """Start and wait until it answers over TLS."""
        data = os.path.join(self.home, "data")
        os.makedirs(data, 0o700, exist_ok=True)
        certificate, key = self.authority.issue(self.address)
        config = os.path.join(self.home, "s3.json")
        with open(config, "w", encoding="utf-8") as handle:
            json.dump({"identities": self.identities}, handle)
        more = []
        if self.roles:
            more = [f"-s3.iam.config={os.path.join(self.home, 'iam.json')}"]
            with open(os.path.join(self.home, "iam.json"), "w", encoding="utf-8") as handle:
                json.dump(_roles(self.roles), handle)
        master, volume, filer, plain, secure = self.ports
        program = shutil.which("weed", path=os.path.dirname(sys.executable)) or "weed"
        with open(os.path.join(self.home, "log"), "ab") as log:
            self.process = subprocess.Popen(
                [program, f"-logdir={self.home}", "server", f"-dir={data}", f"-ip={self.address}", f"-ip.bind={self.address}", f"-master.port={master}",
                 f"-volume.port={volume}", "-filer", f"-filer.port={filer}", "-s3", f"-s3.port={plain}", f"-s3.port.https={secure}",
                 f"-s3.cert.file={certificate}", f"-s3.key.file={key}", f"-s3.config={config}", "-master.volumeSizeLimitMB=256",
                 "-volume.max=5000", "-volume.preStopSeconds=1", "-master.telemetry=false", "-s3.port.iceberg=0", "-s3.port.lance=0", *more],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.home, env={"PATH": "/usr/bin:/bin", "HOME": self.home}, start_new_session=True,
            )
        processes.wait_for(self._answers, "the S3 server")
        return self

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise RuntimeError(f"the S3 server ended: {self.process.returncode}")
        try:
            urllib.request.urlopen(self.endpoint, timeout=30, context=self.authority.context()).close()
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False
        return True

    def stop(self) -> None:
        if self.process is not None:
            processes.end(self.process.pid, signal.SIGKILL)
            self.process.wait(60)
            self.process = None

    def credentials_file(self, name: str, access: str, secret: str) -> str:
        """A shared credentials file with one profile."""
        path = os.path.join(self.home, f"{name}.credentials")
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as handle:
            handle.write(f"[default]\naws_access_key_id = {access}\naws_secret_access_key = {secret}\n")
        return path

    def config(self, bucket: str, prefix: str = "shop", **options: Any) -> dict[str, Any]:
        """A repository of the catalog in a bucket of this store, with the owner's credentials."""
        return {
            "name": "s3", "url": f"s3://{bucket}/{prefix}", "endpoint": self.endpoint, "ca_file": self.ca_file, "path_style": True,
            "credentials_file": self.credentials_file("owner", *OWNER[:2]), **options,
        }


def role_arn(name: str) -> str:
    """How a role is asked for."""
    return f"arn:aws:iam::role/{name}"


def _roles(roles: dict[str, list[str]]) -> dict[str, Any]:
    """What the server reads: whoever has a key may assume any of the roles."""
    trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": ["sts:AssumeRole"]}]}
    signing = base64.b64encode(b"a key of the lab, 32 bytes long..").decode()
    policies = []
    for name, buckets in roles.items():
        resources = [text for bucket in buckets for text in (f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*")]
        statement = {"Effect": "Allow", "Action": ["s3:*"], "Resource": resources}
        policies.append({"name": f"{name}Policy", "document": {"Version": "2012-10-17", "Statement": [statement]}})
    return {
        "sts": {"tokenDuration": "1h", "maxSessionLength": "12h", "issuer": "lab", "signingKey": signing},
        "policy": {"defaultEffect": "Deny", "storeType": "memory"}, "policies": policies,
        "roles": [{"roleName": name, "roleArn": role_arn(name), "attachedPolicies": [f"{name}Policy"], "trustPolicy": trust} for name in roles],
    }


def _identity(name: str, access: str, secret: str, actions: list[str]) -> dict[str, Any]:
    return {"name": name, "credentials": [{"accessKey": access, "secretKey": secret}], "actions": actions}


def _ports(count: int) -> list[int]:
    """Free loopback ports whose neighbours 10000 above are free too: the server takes those for itself."""
    found: list[int] = []
    numbers = random.SystemRandom()
    while len(found) < count:
        port = numbers.randrange(11000, 21000)
        try:
            for number in (port, port + 10000):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", number))
        except OSError:
            continue
        if port not in found:
            found.append(port)
    return found
