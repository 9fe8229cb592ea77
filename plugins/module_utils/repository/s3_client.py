# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""One S3 client: where it connects, as whom, how patient it is, and what its errors mean to an operator.

Retries with jitter, throttling and clock skew are botocore's own ("standard" mode); what it does not retry, a body that breaks
off while it is read, is retried in s3_read.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any, Iterator
from urllib.parse import urlsplit

from ..errors import ClockError, ConfigError, ConflictError, LifeboatError, StorageError
from ..libraries import need

#: Attempts of one request, the first included.
ATTEMPTS = 6
CONNECT_SECONDS = 10
READ_SECONDS = 60
_ABSENT = ("NoSuchKey", "404", "NoSuchVersion", "NotFound")
_TAKEN = ("PreconditionFailed", "412", "ConditionalRequestConflict", "409")

#: Where the bucket stands, by what the catalog says of path_style: in the path, in the host name, or as the S3 client finds right.
_STYLES = {True: "path", False: "virtual", None: "auto"}


class Client:
    """config: a catalog's repository ({"url": "s3://bucket/prefix", endpoint, region, ca_file, credentials_file, profile, path_style, role_arn, external_id}).

    Credentials come from ``credentials_file`` and ``profile`` or from the S3 client's own search (environment, shared files, instance role);
    with ``role_arn`` they are used to assume that role, and renewed while the run lasts. ``attempts``: of one request, if not ATTEMPTS.
    """

    def __init__(self, config: dict[str, Any], connections: int) -> None:
        self.url = str(config.get("url", ""))
        parts = urlsplit(self.url)
        self.bucket, self.prefix = parts.netloc, parts.path.strip("/")
        plain = not self.prefix or all(part not in ("", ".", "..") for part in self.prefix.split("/"))
        if not self.bucket or "@" in self.bucket or parts.query or parts.fragment or not plain:
            raise ConfigError("repository url must name a bucket and a plain prefix", self.url, "write it as s3://bucket/prefix")
        self._config = config
        self._connections = connections
        self._client: Any = None

    @property
    def endpoint(self) -> str | None:
        return str(self._config["endpoint"]) if self._config.get("endpoint") else None

    @property
    def api(self) -> Any:
        """The boto3 client, made at first use; it is thread-safe."""
        if self._client is None:
            with self.translated("connect to", ""):
                self._client = self._make()
        return self._client

    def _make(self) -> Any:
        botocore = need("botocore.config")
        path = self._config.get("credentials_file")
        if path and not os.path.isfile(os.path.expanduser(str(path))):
            raise StorageError("credentials file of the repository is missing", str(path),
                               "put it there on this host, readable by the user who runs this only")
        session = self._session(str(path) if path else None, self._config.get("profile"))
        options = botocore.Config(
            retries={"mode": "standard", "max_attempts": int(self._config.get("attempts") or ATTEMPTS)}, max_pool_connections=self._connections,
            connect_timeout=CONNECT_SECONDS, read_timeout=READ_SECONDS, tcp_keepalive=True, s3={"addressing_style": _STYLES[self._config.get("path_style")]},
            request_checksum_calculation="when_required", response_checksum_validation="when_required",
        )
        common = {"endpoint_url": self.endpoint, "region_name": self._config.get("region") or session.region_name or "us-east-1",
                  "verify": os.path.expanduser(str(self._config["ca_file"])) if self._config.get("ca_file") else None}
        if self._config.get("role_arn"):
            session = _assumed(session, self._config, common)
        return session.client("s3", config=options, **common)

    @staticmethod
    def _session(path: str | None, profile: Any) -> Any:
        session = need("botocore.session").Session(profile=str(profile) if profile else None)
        if path:
            session.set_config_variable("credentials_file", os.path.expanduser(path))
        return need("boto3").session.Session(botocore_session=session)

    def key(self, name: str) -> str:
        """Object key of a name; StorageError for one that is not safe."""
        parts = name.rstrip("/").split("/") if name else []
        if name.startswith("/") or any(part in ("", ".", "..") for part in parts):
            raise StorageError("unsafe object name", repr(name), "the repository's own documents are damaged or hostile; verify it")
        return f"{self.prefix}/{name}" if self.prefix else name

    def where(self, name: str) -> str:
        """An object as an operator names it."""
        return f"s3://{self.bucket}/{self.key(name)}"

    @contextlib.contextmanager
    def translated(self, verb: str, name: str) -> Iterator[None]:
        """botocore's errors become FileNotFoundError, ConflictError or a StorageError that says what to do."""
        exceptions = need("botocore.exceptions")
        where = self.where(name) if name else f"s3://{self.bucket}" + (f" at {self.endpoint}" if self.endpoint else "")
        try:
            yield
        except exceptions.ClientError as error:
            raise self._refused(error, verb, where) from error
        except exceptions.BotoCoreError as error:
            raise _failed(error, verb, where, exceptions) from error

    def _refused(self, error: Any, verb: str, where: str) -> Exception:
        told = error.response.get("Error", {})
        code, status = str(told.get("Code", "")), error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if code in _ABSENT:
            return FileNotFoundError(where)
        if code in _TAKEN:
            return ConflictError("object exists already", where, "another writer was faster; run the same command again")
        if code == "NoSuchBucket":
            return StorageError("bucket does not exist", where, "create it with the bootstrap playbook, or correct url and endpoint")
        if code in ("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"):
            return StorageError(f"the S3 server does not accept the credentials ({code})", where,
                                "renew them in credentials_file, or where the S3 client finds them", "permission")
        if code in ("AccessDenied", "403", "Forbidden", "AllAccessDisabled"):
            return StorageError(f"these credentials may not {verb} this object", where,
                                f"grant {_RIGHTS.get(verb, 'the right')} to the role that runs this, or use the role that has it", "permission")
        if code == "RequestTimeTooSkewed":
            return ClockError("the clock of this host is wrong", where, "set it right (chronyc tracking), then run the same command again")
        throttling = code in ("SlowDown", "Throttling", "TooManyRequests", "503")
        kind = "is throttling" if throttling else f"answered {code or status}"
        passing = throttling or int(status or 0) >= 500
        refused = StorageError(f"cannot {verb} in the repository: the S3 server {kind} ({ATTEMPTS} attempts)", where,
                               "check the S3 server, then run the same command again", "unreachable" if passing else "")
        return refused.passing() if passing else refused


#: What an operator must grant for a verb.
_RIGHTS = {"read": "s3:GetObject", "write": "s3:PutObject", "list": "s3:ListBucket", "lock": "s3:PutObjectRetention",
           "hold": "s3:PutObjectLegalHold", "delete": "s3:DeleteObjectVersion"}


def _failed(error: Exception, verb: str, where: str, exceptions: Any) -> LifeboatError:
    if isinstance(error, (exceptions.NoCredentialsError, exceptions.PartialCredentialsError, exceptions.ProfileNotFound, exceptions.CredentialRetrievalError)):
        return StorageError("no credentials for the repository", where, "name them with credentials_file and profile, or put them where the S3 client looks",
                            "permission")
    if isinstance(error, exceptions.SSLError):
        return StorageError("the S3 server's certificate is not trusted", where, "set ca_file to the CA that signed it")
    if isinstance(error, (exceptions.EndpointConnectionError, exceptions.ConnectTimeoutError, exceptions.ConnectionError, exceptions.HTTPClientError)):
        return StorageError(f"cannot {verb} in the repository: the S3 server does not answer ({type(error).__name__})", where,
                            "check network and endpoint, then run the same command again", "unreachable").passing()
    return StorageError(f"cannot {verb} in the repository ({type(error).__name__})", where, "check the repository's settings in the catalog")


def _assumed(session: Any, config: dict[str, Any], common: dict[str, Any]) -> Any:
    """A session with the credentials of ``role_arn``, renewed by themselves before they expire."""
    credentials = need("botocore.credentials")
    request = {"RoleArn": str(config["role_arn"]), "RoleSessionName": "lifeboat"}
    if config.get("external_id"):
        request["ExternalId"] = str(config["external_id"])
    refresh = credentials.create_assume_role_refresher(session.client("sts", **common), request)
    try:
        metadata = refresh()
    except need("botocore.exceptions").ClientError as error:
        raise StorageError(f"role {config['role_arn']} cannot be assumed ({error.response.get('Error', {}).get('Code')})", str(config.get("url")),
                           "correct role_arn and external_id in the catalog, or let the role trust these credentials") from error
    assumed = need("botocore.session").Session()
    assumed._credentials = credentials.RefreshableCredentials.create_from_metadata(metadata=metadata, refresh_using=refresh, method="sts-assume-role")
    return need("boto3").session.Session(botocore_session=assumed)
