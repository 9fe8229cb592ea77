# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a sound catalog becomes: the entries that inventory, plan and engine share."""

from __future__ import annotations

import json
from typing import Any, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.lifeboat.recovery.plugins.plugin_utils.catalog import kinds, model, reader
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.catalog.problems import CatalogError

FULL = """
plugin: lifeboat.recovery.catalog
production: true
state_dir: ~/state
variables: {root: /srv/shop, port: 5433, url: "http://127.0.0.1:${port}", label: "port ${port}", literal: "$${port}"}
repositories:
  local: {url: "file://${root}-backup"}
  global: {url: s3://backups/shop, endpoint: https://s3.example.com, object_lock: 30d}
keys:
  provider: vault
  url: https://vault:8200
  auth: {method: approle, role_id_file: /etc/lifeboat/role, secret_id_file: ~/secret}
  escrow: "T2jNc3oPK2mOhd7fjoQ9zbKdVfCmZ8p4Ww1yTqVZ0Vw="
tiers:
  gold:
    rto: 5m
    rpo: 1h
    schedule: {full: weekly, incremental: hourly, logs: continuous}
    retention: {hourly: 24, daily: 14, monthly: 12}
    drill: 7d
    repository: global
consistency_groups: {checkout: {max_skew: 5s}}
services:
  identity:
    host: db1
    sources:
      db: {type: postgresql_database, database: identity, port: "${port}", host: db2, provision: [createdb, 5],
           server: {start: [pg_ctl, start], stop: {unit: pg.service}, status: [pg_isready]}}
    health: {http: "${url}/health"}
    schema: {query: select max(version) from migrations, expect: "0042"}
    invariants:
      - {name: users, sql: "select count(*) from users", at_least: 1}
  orders:
    owner: team-checkout
    domain: commerce
    tier: gold
    host: app1
    requires: [identity, {service: mail, kind: soft}]
    consistency_group: checkout
    priority: 3
    sources:
      invoices: {type: files, path: "${root}/invoices"}
      cache: {type: redis}
    runtime: {start: [systemctl, start, orders], hosts: [app1, app2], migrate: [bin/migrate, up]}
    prewarm: {http: [{http: "http://127.0.0.1:8081/hot", required: true}]}
    health: [{tcp: "127.0.0.1:${port}", timeout: 500ms}, {command: [/bin/true]}]
    invariants:
      - {name: "${label}", redis: [GET, a], equals: null}
      - {name: "${literal}", http: "http://h/", json: "a.b", equals: [1]}
    policy: {start: {timeout: 2m, retries: 3}, health: {on_error: rollback}}
  mail: {host: localhost, consistency_group: checkout}
  billing:
    host: app1
    sources:
      db:
        type: postgresql
        host: db1
        data_directory: /srv/pg
        conninfo: user=replicator passfile=/etc/replication
        members: [db5, {host: db6, port: 5434, server: {start: {unit: pg6}}, conninfo: host=10.0.0.6}]
reconcile:
  - name: paid orders exist
    left: {service: identity, sql: select id from a}
    right: {service: orders, redis: [KEYS, "*"]}
    relation: subset
    window: 15m
    compensate: {service: identity, sql: delete from a, limit: 10}
"""


COPIES = """
plugin: lifeboat.recovery.catalog
repositories:
  far: {url: s3://backups/shop, copy_of: local, every: daily}
  local: {url: file:///srv/b}
  near: {url: file:///srv/n, copy_of: local}
  other: {url: file:///srv/o}
keys: {provider: file, path: /k}
tiers: {silver: {copies: near}, none: {copies: []}}
services: {a: {host: h}, b: {host: h, tier: silver}, c: {host: h, tier: silver, copies: [far]}, d: {host: h, tier: none}, e: {host: h, repository: other}}
"""


def test_copies_follow_their_repository(load: Callable[..., model.Catalog]) -> None:
    catalog = load(COPIES)
    assert catalog.document["default_repository"] == "local"
    found = {name: [copy["name"] for copy in catalog.hostvars(name)["lifeboat_repository"].get("copies", [])] for name in catalog.services}
    assert found == {"a": ["far", "near"], "b": ["near"], "c": ["far"], "d": [], "e": []}
    assert catalog.repository_of("c") == {
        "name": "local", "url": "file:///srv/b", "copies": [{"name": "far", "url": "s3://backups/shop", "copy_of": "local", "every": 86400}]}


def test_every_key_of_the_design_is_taken(load: Callable[..., model.Catalog]) -> None:
    with pytest.raises(CatalogError, match=r"invariants\[1\].equals must be one value, is a list"):
        load(FULL)
    catalog = load(FULL.replace("equals: [1]", "equals: 1"))
    document = catalog.document
    assert json.loads(model.canonical(document)) == document
    assert catalog.ecosystem == "shop" and document["production"] is True and document["state_dir"] == "~/state"
    assert document["default_repository"] == "local"
    assert document["repositories"]["global"]["object_lock"] == {"mode": "compliance", "for": 30 * 86400}
    assert document["keys"]["mount"] == "transit" and document["keys"]["escrow"].startswith("T2jN")
    assert catalog.warnings == ()
    assert document["tiers"]["gold"]["schedule"] == {"full": 604800, "incremental": 3600, "logs": 0}
    identity = catalog.services["identity"]
    assert identity["sources"]["db"] == {
        "type": "postgresql_database", "database": "identity", "port": 5433, "address": "127.0.0.1", "cluster": "shared", "host": "db2",
        "provision": ["createdb", "5"],
        "server": {"start": ["pg_ctl", "start"], "stop": {"unit": "pg.service"}, "status": ["pg_isready"]},
    }
    billing = catalog.services["billing"]
    assert billing["members"] == {"db": [{"host": "db5"}, {"host": "db6", "port": 5434, "server": {"start": {"unit": "pg6"}}, "conninfo": "host=10.0.0.6"}]}
    assert "members" not in billing["sources"]["db"]
    assert [catalog.hostvars("billing")[name] for name in ("lifeboat_data_host", "lifeboat_host")] == ["db1", "app1"], "its data is not where it runs"
    assert "lifeboat_host" not in catalog.hostvars("mail")
    assert identity["health"] == [{"http": "http://127.0.0.1:5433/health", "expect_status": 200, "timeout": 5}]
    assert identity["invariants"] == [{"name": "users", "sql": "select count(*) from users", "source": "db", "at_least": 1}]
    orders = catalog.services["orders"]
    assert orders["requires"] == [{"service": "identity", "kind": "hard"}, {"service": "mail", "kind": "soft"}]
    assert (orders["rto"], orders["rpo"], orders["repository"], orders["priority"]) == (300, 3600, "global", 3)
    assert orders["policy"] == {"start": {"timeout": 120, "retries": 3}, "health": {"on_error": "rollback"}}
    assert orders["runtime"]["migrate"] == ["bin/migrate", "up"]
    assert orders["prewarm"] == {"cache": True, "timeout": 30, "http": [
        {"http": "http://127.0.0.1:8081/hot", "required": True, "expect_status": 200, "timeout": 10}]}
    assert identity["schema"] == [{"query": "select max(version) from migrations", "expect": "0042", "source": "db"}]
    assert orders["runtime"]["hosts"] == ["app1", "app2"]
    assert orders["health"][0] == {"tcp": "127.0.0.1:5433", "timeout": 0.5}
    assert orders["sources"]["cache"] == {"type": "redis", "port": 6379}
    assert [check["name"] for check in orders["invariants"]] == ["port 5433", "${port}"]
    assert orders["invariants"][0] == {"name": "port 5433", "redis": ["GET", "a"], "source": "cache", "equals": None}
    assert document["reconcile"][0]["left"]["source"] == "db" and document["reconcile"][0]["right"]["source"] == "cache"
    assert set(catalog.services["mail"]) >= {"owner", "domain", "tier", "host", "runtime", "requires", "consistency_group", "priority",
                                             "sources", "health", "invariants", "policy", "rto", "rpo"}


def test_the_digest_is_of_the_meaning_not_of_the_text(load: Callable[..., model.Catalog]) -> None:
    text = ("plugin: lifeboat.recovery.catalog\nrepositories: {l: {url: file:///srv/b}}\nkeys: {provider: file, path: /k}\n"
            "services: {a: {host: h}, b: {host: h, requires: [a]}}\n")
    same = ("# remark\nservices:\n  b:\n    requires:\n    - {service: a}\n    host: h\n  a: {host: 'h'}\nkeys: {path: /k, provider: file}\n"
            "plugin: lifeboat.recovery.catalog\nrepositories: {l: {url: 'file:///srv/b'}}\n")
    assert load(text).digest == load(same).digest
    assert load(text).digest != load(text.replace("requires: [a]", "priority: 1")).digest
    assert len(load(text).digest) == 64


def test_hostvars(load: Callable[..., model.Catalog]) -> None:
    catalog = load("plugin: lifeboat.recovery.catalog\necosystem: store\nrepositories: {l: {url: file:///srv/b}, m: {url: file:///srv/c}}\n"
                   "keys: {provider: file, path: /k}\nservices: {a: {host: h, repository: m}}\n")
    hostvars = catalog.hostvars("a")
    assert hostvars["lifeboat_repository"] == {"name": "m", "url": "file:///srv/c"}
    assert {key: hostvars[key] for key in hostvars if key not in ("lifeboat_entry", "lifeboat_repository")} == {
        "lifeboat_service": "a", "lifeboat_ecosystem": "store", "lifeboat_production": False,
        "lifeboat_keys": {"provider": "file", "path": "/k"},
        "lifeboat_state_dir": "", "lifeboat_catalog_digest": catalog.digest, "lifeboat_data_host": "h", "lifeboat_beside": [*catalog.services],
    }


def test_a_source_without_log_under_a_short_rpo_is_a_warning(load: Callable[..., model.Catalog]) -> None:
    catalog = load("plugin: lifeboat.recovery.catalog\nrepositories: {l: {url: file:///srv/b}}\nkeys: {provider: file, path: /k}\n"
                   "tiers: {gold: {rpo: 10s, schedule: {incremental: hourly, logs: continuous}}}\n"
                   "services: {a: {host: h, tier: gold, sources: {f: {type: files, path: /srv/a}}}}\n")
    assert catalog.warnings == ("a.f (files) keeps no log: a loss can be up to 1h, although tier gold promises 10s",)


@pytest.mark.parametrize(("log", "warned"), [("", True), (", log: {}", False), (", log: {interval: 2.5}", False)])
def test_a_cluster_counts_as_logged_only_with_its_log(load: Callable[..., model.Catalog], log: str, warned: bool) -> None:
    catalog = load("plugin: lifeboat.recovery.catalog\nrepositories: {l: {url: file:///srv/b}}\nkeys: {provider: file, path: /k}\n"
                   "tiers: {gold: {rpo: 10s, schedule: {incremental: hourly, logs: continuous}}}\n"
                   f"services: {{a: {{host: h, tier: gold, sources: {{d: {{type: postgresql, data_directory: /pg{log}}}}}}}}}\n")
    assert catalog.warnings == (("a.d (postgresql) keeps no log: a loss can be up to 1h, although tier gold promises 10s",) if warned else ())


def test_sizes_of_a_log_are_bytes(load: Callable[..., model.Catalog]) -> None:
    for word, size in (("4G", 4 << 30), ("128 MiB", 128 << 20), (str(64 << 20), 64 << 20)):
        catalog = load("plugin: lifeboat.recovery.catalog\nrepositories: {l: {url: file:///srv/b}}\nkeys: {provider: file, path: /k}\n"
                       f"services: {{a: {{host: h, sources: {{d: {{type: postgresql, data_directory: /pg, log: {{spool_limit: {word}}}}}}}}}}}\n")
        assert catalog.services["a"]["sources"]["d"]["log"] == {"spool_limit": size}


def test_variables_from_file_and_environment(load: Callable[..., model.Catalog], tmp_path: Any) -> None:
    (tmp_path / "values.yml").write_text("port: 5433\nroot: /from/file\n")
    catalog = load(
        "plugin: lifeboat.recovery.catalog\nvariables: {file: '${env:WHERE}', root: /inline}\nrepositories: {l: {url: 'file://${root}/b'}}\n"
        "keys: {provider: file, path: /k}\n"
        "services: {a: {host: '${env:HOST}', priority: '${env:NUMBER}', sources: {c: {type: redis, port: '${port}'}}}}\n",
        {"WHERE": str(tmp_path / "values.yml"), "HOST": "db1", "NUMBER": "7"},
    )
    assert catalog.document["repositories"]["l"]["url"] == "file:///inline/b"
    assert (catalog.services["a"]["host"], catalog.services["a"]["priority"], catalog.services["a"]["sources"]["c"]["port"]) == ("db1", 7, 5433)


def test_templates_are_text(load: Callable[..., model.Catalog]) -> None:
    catalog = load("plugin: lifeboat.recovery.catalog\nrepositories: {l: {url: file:///srv/b}}\nkeys: {provider: file, path: /k}\n"
                   "services: {a: {host: h, owner: \"{{ lookup('pipe', 'id') }}\"}}\n")
    assert catalog.services["a"]["owner"] == "{{ lookup('pipe', 'id') }}"


@pytest.mark.parametrize("text, value", [
    ("on", "on"), ("017", "017"), ("1:30", "1:30"), ("1_000", "1_000"), ("0x1f", "0x1f"), ("2030-01-31", "2030-01-31"), ("yes", "yes"),
    ("~", None), ("null", None), ("true", True), ("12", 12), ("-3", -3), ("1.5", 1.5), ("1e3", 1000.0), (".inf", ".inf"), ("1e999", "1e999"),
    ("9" * 30, "9" * 30), ("'12'", "12"), ("''", ""),
])
def test_words_stay_words(text: str, value: Any) -> None:
    root, problems = reader.parse(f"a: {text}\n", "f")
    assert root.plainly() == {"a": value} and not problems


@pytest.mark.parametrize("text, seconds", [
    ("90", 90), (90, 90), ("5m", 300), ("10s", 10), ("7d", 604800), ("1h30m", 5400), ("250ms", 0.25), ("2w", 1209600), (1.5, 1.5), (0, 0),
    ("", None), ("5", 5), ("m", None), ("5 m", None), ("-5m", None), (-1, None), (True, None), (None, None), ("5mm", None), ("٥m", None), ("1" * 50, None),
])
def test_durations(text: object, seconds: float | None) -> None:
    assert kinds.duration_seconds(text) == seconds


def bomb(levels: int) -> str:
    return "variables:\n  v0: xxxxxxxxxx\n" + "".join(f"  v{n}: '{('${v' + str(n - 1) + '}') * 10}'\n" for n in range(1, levels))


@pytest.mark.parametrize("text, message", [
    ("a: " + "[" * 100 + "]" * 100, "nested deeper than 24 levels"),
    ("a: [" + "1," * (reader.MAX_NODES + 1) + "]", "more than 200000 values"),
    ("a: '" + "x" * (reader.MAX_SCALAR + 1) + "'", "a value longer than 65536 characters"),
    (bomb(12), "substitution makes too much text"),
    ("variables:\n  v0: '" + "x" * 60000 + "'\nservices: {a: {host: '" + "${v0}" * 10000 + "'}}", "substitution makes too much text"),
    ("variables:\n  v0: '" + "x" * 60000 + "'\nservices: [" + "'${v0}'," * 200 + "]", "substitution makes too much text"),
], ids=["deep", "many", "long", "variables", "references", "sum"])
def test_bombs_are_refused(load: Callable[..., model.Catalog], text: str, message: str) -> None:
    with pytest.raises(CatalogError) as caught:
        load(text)
    assert message in str(caught.value)


def test_a_huge_file_is_refused_before_it_is_read(load: Callable[..., model.Catalog], tmp_path: Any) -> None:
    with open(tmp_path / "huge.catalog.yml", "wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(CatalogError, match="larger than 4 MiB: .*huge.catalog.yml:1; split the catalog"):
        model.load(str(tmp_path / "huge.catalog.yml"), {})


def test_not_utf8(load: Callable[..., model.Catalog], tmp_path: Any) -> None:
    (tmp_path / "latin.catalog.yml").write_bytes(b"plugin: x\nname: caf\xe9\n")
    with pytest.raises(CatalogError, match="not UTF-8: .*latin.catalog.yml:2; save the file as UTF-8"):
        model.load(str(tmp_path / "latin.catalog.yml"), {})


# -- whatever is read, the answer is a catalog or a list of faults ----------------------------------------------------------------

_leaves = st.one_of(st.none(), st.booleans(), st.integers(-10, 10 ** 6), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=12),
                    st.sampled_from(["${a}", "${env:X}", "a", "b", "../x", "/srv/a", "5m", "files", "redis", "h", "gold"]))
_keys = st.sampled_from(["plugin", "services", "repositories", "keys", "tiers", "variables", "reconcile", "a", "b", "host", "requires", "sources", "type",
                         "path", "health", "invariants", "runtime", "start", "tasks", "kind", "service", "priority", "consistency_group", "rpo", "schedule",
                         "url", "provider", "file", "left", "right", "name", "sql", "http", "tcp", "equals", "tier", "repository", "policy", "server"])
_trees = st.recursive(_leaves, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(_keys, inner, max_size=6)), max_leaves=40)


@settings(max_examples=400, deadline=None)
@given(tree=st.dictionaries(_keys, _trees, max_size=8))
def test_any_tree_is_a_catalog_or_faults(tree: dict[str, Any]) -> None:
    _read(json.dumps(tree))


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_damage_of_a_catalog_is_a_catalog_or_faults(data: st.DataObject) -> None:
    text = FULL.replace("equals: [1]", "equals: 1")
    for _round in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = min(len(text), start + data.draw(st.integers(0, 30)))
        text = text[:start] + data.draw(st.text(max_size=10)) + text[end:]
    _read(text)


def _read(text: str) -> None:
    try:
        catalog = model.loads(text, "shop.catalog.yml", {})
    except CatalogError as error:
        for line in str(error).splitlines():
            assert "shop.catalog.yml:" in line and "; " in line
    else:
        assert json.loads(model.canonical(catalog.document)) == catalog.document
