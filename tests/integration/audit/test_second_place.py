# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A journal in a bucket with object lock, on a real store over TLS: there once, readable, and not to be replaced or deleted."""

from __future__ import annotations

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils.repository.registry import backend_for
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository.s3 import S3Backend
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run import copies
from ansible_collections.lifeboat.recovery.tests.lab.seaweed import Seaweed


def test_a_locked_bucket() -> None:
    with Seaweed() as store:
        place = {**store.config("audit", "site", object_lock={"mode": "compliance", "for": 86400}), "required": True}
        absent = copies.send({**place, "url": "s3://absent/site"}, "run-1", b"journal\n")
        assert not absent["ok"] and absent["required"], absent  # a bucket is its owner's to make
        backend = backend_for({key: value for key, value in place.items() if key != "required"})
        assert isinstance(backend, S3Backend) and backend.prepare()
        assert [copies.send(place, "run-1", b"journal\n")["problem"] for _number in range(2)] == ["", ""]
        assert not copies.send(place, "run-1", b"another\n")["ok"]
        assert backend.read("journals/run-1.jsonl", 100) == b"journal\n" and str(backend.locked_until("journals/run-1.jsonl")) > "2026"
        versions = backend.client.api.list_object_versions(Bucket="audit", Prefix="site/journals/")["Versions"]
        with pytest.raises(Exception, match="AccessDenied"):
            backend.client.api.delete_object(Bucket="audit", Key=versions[0]["Key"], VersionId=versions[0]["VersionId"])
