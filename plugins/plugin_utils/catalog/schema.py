# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The closed schema of a catalog: which keys there are, of which kind, with which defaults. Meaning is in validation.py."""

from __future__ import annotations

from typing import Any

from ansible_collections.lifeboat.recovery.plugins.module_utils import policy

from . import checks, kinds, places, sources, trust
from .kinds import WRONG, At, Field
from .reader import Node


def log_interval(node: Node, at: At) -> Any:
    """As interval; continuous is 0."""
    return 0 if node.value == "continuous" else places.interval(node, at)


SCHEDULE = {"full": Field(places.interval), "incremental": Field(places.interval), "logs": Field(log_interval)}
RETENTION = {key: Field(kinds.integer(0, 100_000)) for key in ("last", "hourly", "daily", "weekly", "monthly", "yearly")}
TIER = {
    "rto": Field(kinds.positive_duration),
    "rto_gate": Field(kinds.choice("warn", "refuse")),
    "rpo": Field(kinds.positive_duration),
    "schedule": Field(kinds.closed(SCHEDULE)),
    "retention": Field(kinds.closed(RETENTION)),
    "drill": Field(places.interval),
    "repository": Field(kinds.name),
    "copies": Field(kinds.sequence(kinds.name, single=True)),
}
GROUP = {"max_skew": Field(kinds.duration)}

REQUIREMENT = {"service": Field(kinds.name, required=True), "kind": Field(kinds.choice("hard", "soft"), default="hard")}


def requirement(node: Node, at: At) -> Any:
    """A service name, or {service, kind: hard|soft}."""
    def short(node: Node, at: At) -> Any:
        value = kinds.name(node, at)
        return WRONG if value is WRONG else {"service": value, "kind": "hard"}
    return kinds.closed(REQUIREMENT, short=short)(node, at)


RUNTIME = {
    "start": Field(sources.control_kind),
    "stop": Field(sources.control_kind),
    "status": Field(sources.control_kind),
    "migrate": Field(kinds.argv),
    "hosts": Field(kinds.sequence(kinds.host, minimum=1)),
    "quorum": Field(kinds.integer(1, 1000)),
}
_STEP_KINDS = {
    "timeout": kinds.positive_duration, "retries": kinds.integer(0, 100), "backoff": kinds.positive_duration, "on_error": kinds.choice(*policy.ON_ERROR),
}
#: Step -> what may be said of it; what is left out has the engine's default.
POLICY = {step: {key: Field(_STEP_KINDS[key]) for key in defaults} for step, defaults in policy.STEPS.items()}
PREWARM = {
    "cache": Field(kinds.boolean, default=True),
    "http": Field(kinds.sequence(kinds.closed(checks.WARM_UP)), default=[]),
    "timeout": Field(kinds.positive_duration, default=30),
}

SERVICE = {
    "owner": Field(kinds.text),
    "domain": Field(kinds.name),
    "tier": Field(kinds.name),
    "host": Field(kinds.host, required=True),
    "runtime": Field(kinds.closed(RUNTIME), default={}),
    "requires": Field(kinds.sequence(requirement, single=True), default=[]),
    "consistency_group": Field(kinds.name),
    "priority": Field(kinds.integer(0, 1_000_000)),
    "sources": Field(kinds.mapping_of(sources.source_kind), default={}),
    "health": Field(kinds.sequence(checks.probe_kind, single=True), default=[]),
    "invariants": Field(kinds.sequence(checks.invariant_kind), default=[]),
    "schema": Field(kinds.sequence(kinds.closed(checks.SCHEMA), single=True), default=[]),
    "prewarm": Field(kinds.closed(PREWARM)),
    "policy": Field(kinds.closed({step: Field(kinds.closed(fields)) for step, fields in POLICY.items()}, what="steps"), default={}),
    "repository": Field(kinds.name),
    "copies": Field(kinds.sequence(kinds.name, single=True)),
}
#: Keys that every normalised entry has, null where the catalog is silent.
SERVICE_NULLS = ("owner", "domain", "tier", "consistency_group", "priority", "repository")


def service(node: Node, at: At) -> Any:
    """As much of a service as is right, so that the rest of the catalog can still be checked against it."""
    if node.kind != "map":
        kinds.closed(SERVICE)(node, at)
        return {}
    return kinds.take_fields(node, at, SERVICE, partial=True)


NEVER = {
    "hosts": Field(kinds.sequence(kinds.host, single=True), default=[]),
    "machines": Field(kinds.sequence(kinds.text, single=True), default=[]),
    "systems": Field(kinds.sequence(kinds.text, single=True), default=[]),
    "paths": Field(kinds.sequence(kinds.path, single=True), default=[]),
}

CATALOG = {
    "plugin": Field(kinds.choice("lifeboat.recovery.catalog"), required=True),
    "ecosystem": Field(kinds.name),
    "production": Field(kinds.boolean, default=False),
    "variables": Field(kinds.anything),
    "state_dir": Field(kinds.home_path),
    "repositories": Field(kinds.mapping_of(places.repository), required=True),
    "keys": Field(places.keys, required=True),
    "never_restore_into": Field(kinds.closed(NEVER)),
    "approvals": Field(trust.approvals),
    "audit": Field(trust.audit, default={"copies": []}),
    "tiers": Field(kinds.mapping_of(kinds.closed(TIER)), default={}),
    "consistency_groups": Field(kinds.mapping_of(kinds.closed(GROUP))),
    "services": Field(kinds.mapping_of(service), required=True),
    "reconcile": Field(kinds.sequence(kinds.closed(checks.RECONCILE)), default=[]),
}
