# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The policy of a bucket: our statements among those of others, which stay as they are.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutBucketPolicy.html
"""

from __future__ import annotations

import json
from functools import partial
from typing import Any, Mapping

from ..errors import ConfigError, StorageError
from ..libraries import need
from ..repository.s3_client import Client
from . import objects
from .site import Place, Site
from .things import Thing

#: The greatest bucket policy of AWS, bytes; others follow it.
LARGEST = 20 * 1024
_LISTS = ("Action", "NotAction", "Resource", "NotResource")


class BucketAccess:
    """One bucket. places: the repositories in it. login: {"credentials_file", "profile"} of its owner, in place of the catalog's."""

    def __init__(self, site: Site, places: list[Place], login: Mapping[str, Any], principal: str) -> None:
        if "{identity}" not in principal:
            raise ConfigError("lifeboat_access_principal names no identity", repr(principal), "end it with the word identity in braces, see docs/access.md")
        self._site = site
        self._places = places
        self._principal = principal
        own = {name: value for name, value in places[0].config.items() if name not in ("credentials_file", "profile", "role_arn", "external_id")}
        self._client = Client({**own, **login, "url": f"s3://{places[0].bucket}"}, 2)

    def thing(self, present: bool) -> Thing:
        """The bucket's policy as it is and as it shall be."""
        held = self._read()
        prefix = objects.sid_prefix(self._site)
        others = [statement for statement in held.get("Statement", []) if not str(statement.get("Sid", "")).startswith(prefix)]
        wanted = self._wanted() if present else []
        document = {**held, "Version": held.get("Version", "2012-10-17"), "Statement": [*others, *wanted]}
        if len(json.dumps(document, separators=(",", ":"))) > LARGEST:
            raise ConfigError(
                f"the policy of the bucket would have more than {LARGEST} bytes", self._where(),
                "name fewer roles, use a bucket per ecosystem, or leave the principal out and attach the documents of the answer to the identities",
            )
        before, after = _text(held), _text(document) if document["Statement"] else None
        return Thing("bucket policy", self._where(), before, after, partial(self._write, document))

    def _wanted(self) -> list[dict[str, Any]]:
        made = {
            statement["Sid"]: statement
            for place in self._places for statement in objects.statements(self._site, place, lambda identity: self._principal.replace("{identity}", identity))
        }
        return list(made.values())

    def _where(self) -> str:
        return f"s3://{self._client.bucket}" + (f" at {self._client.endpoint}" if self._client.endpoint else "")

    def _ask(self, right: str, call: str, **arguments: Any) -> Any:
        """The answer of the store; None where there is no policy."""
        with self._client.translated("write", ""):
            try:
                return getattr(self._client.api, call)(Bucket=self._client.bucket, **arguments)
            except need("botocore.exceptions").ClientError as error:
                code = str(error.response.get("Error", {}).get("Code", ""))
                if code == "NoSuchBucketPolicy":
                    return None
                if code == "AccessDenied":
                    raise StorageError(
                        f"these credentials may not do {right}", self._where(), "give those of the bucket's owner: lifeboat_access_s3_credentials_file",
                    ) from error
                if code in ("MalformedPolicy", "InvalidPolicyDocument", "InvalidArgument"):
                    raise StorageError(
                        f"the store does not take the policy ({error.response['Error'].get('Message', code)[:200]})", self._where(),
                        "are the identities there that lifeboat_access_principal names? Otherwise attach the documents of the answer to the identities",
                    ) from error
                raise

    def _read(self) -> dict[str, Any]:
        answer = self._ask("s3:GetBucketPolicy", "get_bucket_policy")
        if answer is None:
            return {}
        try:
            held = json.loads(answer["Policy"])
        except ValueError as error:
            raise StorageError("the policy of the bucket is no JSON", self._where(), "look at it with the store's own tools") from error
        statements = held.get("Statement", [])
        return {**held, "Statement": statements if isinstance(statements, list) else [statements]}

    def _write(self, document: dict[str, Any]) -> None:
        if document["Statement"]:
            self._ask("s3:PutBucketPolicy", "put_bucket_policy", Policy=json.dumps(document, separators=(",", ":")))
        else:
            self._ask("s3:DeleteBucketPolicy", "delete_bucket_policy")
        if _text(self._read()) != (_text(document) if document["Statement"] else None):
            raise StorageError(
                "the store holds another policy than was written", self._where(),
                "somebody else changed it at the same moment, or the store does not know some of its conditions: compare both with --check --diff",
            )


def _text(document: dict[str, Any]) -> str | None:
    """A policy in one form, whatever form the store gives it: lists and single values are the same, and their order says nothing."""
    if not document:
        return None
    statements = [_canonical(statement) for statement in document["Statement"]]
    return json.dumps({**document, "Statement": statements}, indent=1, sort_keys=True) + "\n"


def _canonical(statement: dict[str, Any]) -> dict[str, Any]:
    made = {**statement, **{key: _sorted(statement[key]) for key in _LISTS if key in statement}}
    for key in ("Principal", "NotPrincipal"):
        if isinstance(statement.get(key), dict):
            made[key] = {kind: _sorted(value) for kind, value in statement[key].items()}
    if statement.get("Condition"):
        made["Condition"] = {
            operator: {key: _sorted(value) for key, value in sorted(tests.items())} for operator, tests in sorted(statement["Condition"].items())
        }
    return made


def _sorted(value: Any) -> list[str]:
    return sorted(str(each) for each in (value if isinstance(value, list) else [value]))
