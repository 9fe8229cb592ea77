# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/catalog.md lists every key that the schema has, and no other; the shipped catalogs are sound."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Iterable, Mapping

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils import policy
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources import registry
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.catalog import checks, kinds, model, places, schema, sources, trust

ROOT = Path(__file__).resolve().parents[4]

SECTIONS: dict[str, Iterable[str]] = {
    "Top level": schema.CATALOG, "repositories.NAME": places.REPOSITORY, "repositories.NAME.object_lock": places.OBJECT_LOCK, "keys": places.KEYS,
    "never_restore_into": schema.NEVER, "approvals": trust.APPROVALS, "approvals.keys.NAME": trust.APPROVER, "audit": trust.AUDIT,
    "audit.copies": ["file", "protocol", "required", "syslog", "url"],
    "tiers.NAME": schema.TIER, "tiers.NAME.schedule": schema.SCHEDULE, "tiers.NAME.retention": schema.RETENTION,
    "consistency_groups.NAME": schema.GROUP, "services.NAME": schema.SERVICE, "services.NAME.requires": schema.REQUIREMENT,
    "services.NAME.runtime": schema.RUNTIME, "services.NAME.schema": checks.SCHEMA, "services.NAME.prewarm": schema.PREWARM,
    "services.NAME.prewarm.http": checks.WARM_UP, "services.NAME.policy": schema.POLICY,
    "services.NAME.policy.STEP": {key for step in schema.POLICY.values() for key in step}, "services.NAME.sources.NAME": sources.COMMON,
    "services.NAME.health": checks.PROBE, "services.NAME.invariants": checks.INVARIANT, "reconcile": checks.RECONCILE,
    "reconcile.left": checks.SIDE, "reconcile.compensate": checks.COMPENSATE,
}


@pytest.fixture(scope="module", autouse=True)
def fixed_options() -> None:
    """The real options here, not the fixed ones of the other tests."""


def documented() -> Mapping[str, list[str]]:
    """Section -> keys of its tables."""
    found: dict[str, list[str]] = {}
    section = ""
    for line in (ROOT / "docs" / "catalog.md").read_text().splitlines():
        if line.startswith("#"):
            section = line.lstrip("#").strip()
        match = re.match(r"\| `([a-z_]+)`", line)
        if match:
            found.setdefault(section, []).append(match.group(1))
    return found


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_is_in_the_reference(section: str) -> None:
    assert sorted(documented()[section]) == sorted(SECTIONS[section])


def test_the_defaults_of_the_policy_are_in_the_reference() -> None:
    text = (ROOT / "docs" / "catalog.md").read_text()
    for step, defaults in policy.STEPS.items():
        cells = [cell.strip() for cell in re.findall(rf"^\| `{step}` \|(.*)\|$", text, re.MULTILINE)[-1].split("|")]
        for key, cell in zip(("timeout", "retries", "backoff", "on_error"), cells):
            assert key in defaults or cell == "–", (step, key)
            if key in defaults:
                wanted = cell if key == "on_error" else 0 if cell == "none" else kinds.duration_seconds(cell)
                assert wanted == defaults[key], (step, key)


def test_every_option_of_every_source_is_in_the_reference() -> None:
    for source_type in registry.types():
        assert documented()[f"type: {source_type}"] == list(registry.get(source_type).options)


def test_every_option_of_every_login_is_in_the_reference() -> None:
    from ansible_collections.lifeboat.recovery.plugins.module_utils.keys import vault_auth

    text = (ROOT / "docs" / "catalog.md").read_text()
    section = text[text.index("### keys.auth"):text.index("## tiers.NAME")]
    for method in vault_auth.METHODS:
        assert all(f"`{option}`" in section for option in (method, *places.auth_fields(method)))


def test_every_option_has_a_kind_and_a_default_that_fits() -> None:
    for source_type in registry.types():
        for option, spec in registry.get(source_type).options.items():
            for one in (spec, *spec.get("options", {}).values()):
                assert one["type"] in sources.KINDS, f"{source_type}.{option}"
                assert set(one) <= {"type", "required", "default", "help", "choices", "options", "least", "most"} and one["help"]
            default: Any = spec.get("default")
            assert default is None or not spec.get("choices") or default in spec["choices"]


@pytest.mark.parametrize("name, services", [("inventories/example/shop.catalog.yml", 8), ("inventories/demo/shop.catalog.yml", 6)])
def test_shipped_catalogs_are_sound(name: str, services: int, tmp_path: Path) -> None:
    values = {"host": "127.0.0.1", "home": "/srv/shop", "python": "/usr/bin/python3", "invoices": "/srv/invoices"}
    used = set(re.findall(r"\$\{([a-z_]+)\}", (ROOT / name).read_text()))
    for variable in sorted(used - set(values)):
        values[variable] = str(40000 + len(values)) if variable.endswith("_port") else f"/srv/{variable}"
    (tmp_path / "variables.yml").write_text("".join(f"{variable}: {value}\n" for variable, value in values.items()))
    catalog = model.load(str(ROOT / name), {"SHOP_HOME": str(tmp_path)})
    assert len(catalog.services) == services


def test_the_example_of_the_reference_is_sound(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "catalog.md").read_text()
    assert list(model.loads(text.split("```yaml\n")[1].split("```")[0], str(tmp_path / "shop.catalog.yml"), {}).services) == ["identity", "gateway"]
