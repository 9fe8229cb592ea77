# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""As whom, and under which host name, a bucket is asked: assumed roles on a real server, and where the bucket's name stands."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any

import botocore.awsrequest
import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import StorageError
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository.s3 import S3Backend
from ansible_collections.lifeboat.recovery.tests.lab.seaweed import OWNER, Seaweed, role_arn


@pytest.fixture(scope="module")
def server() -> Iterator[Seaweed]:
    with Seaweed(roles={"Backup": ["of-the-role"]}) as store:
        for bucket in ("of-the-role", "of-others"):
            S3Backend(store.config(bucket)).prepare()
        yield store


def test_a_role_is_assumed_may_what_it_may_and_is_renewed_in_the_middle(server: Seaweed) -> None:
    backend = S3Backend(server.config("of-the-role", role_arn=role_arn("Backup")))
    backend.create("services/a/one", b"as the role", "pack")
    credentials = backend.client.api._request_signer._credentials
    first = credentials.get_frozen_credentials()
    assert first.token and first.access_key != OWNER[0]
    credentials._expiry_time = datetime.datetime.now(datetime.timezone.utc)
    backend.create("services/a/two", b"renewed", "pack")
    assert credentials.get_frozen_credentials().access_key != first.access_key
    assert backend.read("services/a/one", 100) == b"as the role"
    other = S3Backend(server.config("of-others", role_arn=role_arn("Backup")))
    with pytest.raises(StorageError, match="these credentials may not"):
        other.create("services/a/one", b"not its own", "pack")


def test_a_role_that_may_not_be_assumed_is_one_line(server: Seaweed) -> None:
    with pytest.raises(StorageError, match="role arn:aws:iam::role/Nobody cannot be assumed") as caught:
        S3Backend(server.config("of-the-role", role_arn=role_arn("Nobody"))).size("lifeboat.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("style", "url"), [
    ({"path_style": True}, "https://s3.example.org/shop/here/a"), ({"path_style": False}, "https://shop.s3.example.org/here/a"),
    ({}, "https://s3.example.org/shop/here/a"),
])
def test_where_the_bucket_stands(style: dict[str, Any], url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")):
        monkeypatch.setenv(name, value)
    backend = S3Backend({"url": "s3://shop/here", "endpoint": "https://s3.example.org", **style})
    asked: list[str] = []

    def answer(request: botocore.awsrequest.AWSPreparedRequest, **_more: Any) -> botocore.awsrequest.AWSResponse:
        asked.append(str(request.url))
        made = botocore.awsrequest.AWSResponse(str(request.url), 200, {"content-length": "5"}, None)
        made._content = b""
        return made

    backend.client.api.meta.events.register("before-send.s3", answer)
    assert backend.size("a") == 5 and asked == [url]
