# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What hosts tell of sockets and clients, held against what the catalog requires."""

from __future__ import annotations

from typing import Any

from ansible_collections.lifeboat.recovery.plugins.plugin_utils.plan import discovery

NOW = "2030-01-08T00:00:00Z"


def entry(host: str, *requires: str, **more: Any) -> dict[str, Any]:
    return {"host": host, "requires": [{"service": name, "kind": "hard"} for name in requires], "sources": {}, "runtime": {}, "health": [], **more}


def host(*addresses: str, **more: Any) -> dict[str, Any]:
    return {
        "spaces": {"1": list(addresses)}, "own_space": "1", "listening": [], "connections": [], "clients": [], "local": [], "running": [], "visible": [],
        "hidden": 0, "not_looked": {}, "notes": [], **more,
    }


def listener(port: int, *services: str, address: str = "0.0.0.0", space: str = "1") -> dict[str, Any]:
    return {"space": space, "address": address, "port": port, "services": list(services), "by": "port", "program": "server", "unit": "", "container": {}}


def connection(remote: str, port: int, *services: str, local: tuple[str, int] = ("10.0.0.1", 40000), space: str = "1") -> dict[str, Any]:
    return {"space": space, "remote": remote, "remote_port": port, "local": [list(local)], "services": list(services), "by": "unit", "program": "worker"}


def compared(services: dict[str, Any], former: dict[str, Any] | None = None, **answers: Any) -> dict[str, Any]:
    return discovery.compare({"ecosystem": "e", "services": services}, answers, NOW, former or {})


def kinds(found: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    return [(one["level"], one["kind"], one["service"], one["uses"]) for one in found["findings"]]


def edges(found: dict[str, Any]) -> dict[tuple[str, str], str]:
    return {(edge["service"], edge["uses"]): edge["declared"] for edge in found["edges"]}


def test_what_is_used_and_not_required_is_a_warning_with_the_whole_line() -> None:
    services = {"shop": entry("app1", "identity"), "orders": entry("db1"), "identity": entry("db1", "vault"), "vault": entry("db1")}
    services["shop"]["requires"].append({"service": "vault", "kind": "soft"})
    found = compared(
        services, app1=host("10.0.0.1", connections=[connection("10.0.0.2", port, "shop") for port in (80, 81, 82)]),
        db1=host("10.0.0.2", listening=[listener(80, "orders"), listener(81, "identity"), listener(82, "vault", address="10.0.0.2")]),
    )
    assert edges(found) == {("shop", "orders"): "", ("shop", "identity"): "hard", ("shop", "vault"): "soft"}
    assert kinds(found) == [("warning", "undeclared", "shop", "orders")]
    assert found["findings"][0]["what"] == "shop uses orders and does not require it: worker is connected to 10.0.0.2:80"
    assert found["findings"][0]["remedy"] == "add it to services.shop: requires: [identity, {service: vault, kind: soft}, orders]"
    screen = discovery.lines(found)
    assert "3 dependencies seen on 2 hosts, 2 of them declared" in screen[0] and found["findings"][0]["what"] in screen[1]


def test_a_requirement_of_a_requirement_is_declared_and_one_back_would_be_a_cycle() -> None:
    services = {"shop": entry("h", "mid"), "mid": entry("h", "base"), "base": entry("h")}
    found = compared(services, h=host(
        listening=[listener(1, "base"), listener(2, "shop")],
        connections=[connection("127.0.0.1", 1, "shop"), connection("127.0.0.1", 2, "base")],
    ))
    assert edges(found) == {("shop", "base"): "indirect", ("base", "shop"): ""}
    assert kinds(found) == [("note", "backward", "base", "shop")]


def test_a_requirement_that_nobody_sees_used_is_a_note_when_both_run_and_could_be_seen() -> None:
    services = {"shop": entry("h", "orders"), "orders": entry("h")}
    both = host(running=["orders", "shop"], visible=["orders", "shop"])
    assert kinds(compared(services, h=both)) == [("note", "dead", "shop", "orders")]
    assert kinds(compared(services, h=host(running=["shop"], visible=["shop"]))) == [], "what does not run is not used"
    assert kinds(compared(services, h=host(running=["orders", "shop"], visible=["orders"], hidden=3))) == [("warning", "hidden", "h", "")]
    on_two = {**services, "shop": entry("h", "orders", runtime={"hosts": ["h", "h2"]})}
    assert kinds(compared(on_two, h=both, h2={"silent": "it does not answer"})) == [("warning", "silent", "h2", "")], "it may be used from there"

    def before(seen: str) -> dict[str, Any]:
        return {"ecosystem": "e", "edges": [{"service": "shop", "uses": "orders", "first": "2029-01-01T00:00:00Z", "seen": seen}]}

    recent = compared(services, before("2030-01-02T00:00:00Z"), h=both)
    assert kinds(recent) == [] and recent["edges"][0]["seen"] == "2030-01-02T00:00:00Z"
    old = compared(services, before("2029-12-02T00:00:00Z"), h=both)
    assert "no connection was seen since 2029-12-02" in old["findings"][0]["what"]
    assert kinds(compared(services, {**before(NOW), "ecosystem": "another"}, h=both)) == [("note", "dead", "shop", "orders")]


def test_loopback_is_of_one_host_and_one_namespace() -> None:
    services = {"shop": entry("app1"), "orders": entry("db1"), "boxed": entry("app1")}
    found = compared(
        services,
        app1=host("10.0.0.1", spaces={"1": ["10.0.0.1"], "2": ["172.17.0.2"]}, listening=[listener(80, "boxed", address="127.0.0.1", space="2")],
                  connections=[connection("127.0.0.1", 80, "shop"), connection("172.17.0.2", 80, "shop")]),
        db1=host("10.0.0.2", spaces={"1": ["10.0.0.2"], "2": ["172.17.0.2"]}, listening=[listener(80, "orders", space="2")]),
    )
    assert edges(found) == {}, "neither another host's loopback, nor a container's, nor its bridge by an address that both have"
    assert [(one["address"], one["port"]) for one in found["unknown_peers"]] == [("127.0.0.1", 80), ("172.17.0.2", 80)]


def test_of_a_shared_database_the_server_tells_who_uses_which() -> None:
    services = {name: entry("db1") for name in ("orders", "bills")} | {"shop": entry("app1"), "mill": entry("app1"), "inn": entry("app1")}

    def client(service: str, port: int, address: str = "10.0.0.1", **more: Any) -> dict[str, Any]:
        return {"service": service, "source": "db", "kind": "postgresql", "database": service, "user": "app", "application": "", "address": address,
                "port": port, "server_pid": 7, "peer": None, **more}

    app = host("10.0.0.1", connections=[
        connection("10.0.0.2", 5432, "shop", local=("10.0.0.1", 40001)), connection("10.0.0.2", 5432, "mill", local=("10.0.0.1", 40002)),
    ])
    found = compared(services, app1=app, db1=host(
        "10.0.0.2", listening=[listener(5432, "bills", "orders")], clients=[
            client("orders", 40001), client("bills", 0, "", peer={"services": ["orders"], "program": "x"}),
            client("bills", 50000, "10.9.9.9", application="inn"), client("bills", 50001, "10.9.9.9", application="grafana"),
        ],
    ))
    assert set(edges(found)) == {("shop", "orders"), ("orders", "bills"), ("inn", "bills")}
    unclear = [one["service"] for one in found["findings"] if one["kind"] == "unclear"]
    assert unclear == ["mill"], "the server did not tell of that connection"
    assert [(one["client"], one["address"], one["service"]) for one in found["unknown_clients"]] == [("grafana", "10.9.9.9", "bills")]


def test_what_belongs_to_no_service_is_listed() -> None:
    found = compared({"shop": entry("h")}, h=host("10.0.0.1", listening=[listener(22), listener(80, "shop")], connections=[
        connection("192.0.2.7", 443, "shop"), connection("192.0.2.8", 443), connection("10.0.0.1", 22, "shop")]))
    assert [(one["address"], one["port"], one["program"]) for one in found["unknown_peers"]] == [("10.0.0.1", 22, "server"), ("192.0.2.7", 443, "")]
    assert [one["port"] for one in found["unlisted"]] == [22] and kinds(found) == []
    assert "  outside: shop is connected to 192.0.2.7:443" in discovery.lines(found)


def test_a_host_is_asked_once_for_all_that_is_declared_there() -> None:
    services = {
        "orders": entry("db1", sources={"db": {"type": "postgresql", "data_directory": "/pg", "port": 5433, "server": {"start": {"unit": "pg"}}}}),
        "files": entry("db1", sources={"tree": {"type": "files", "path": "/srv/files"}},
                       runtime={"status": ["/bin/systemctl", "is-active", "--quiet", "files"]},
                       health=[{"http": "https://files.example/x"}, {"tcp": "127.0.0.1:80"}, {"tcp": "nonsense"}]),
        "shop": entry("app1", runtime={"hosts": ["app1", "app2"]}),
    }
    there = discovery.declared(services)
    assert there["db1"]["orders"] == {"units": ["pg"], "paths": ["/pg"], "ports": [["127.0.0.1", 5433]], "databases": services["orders"]["sources"]}
    assert there["db1"]["files"]["units"] == ["files"] and there["db1"]["files"]["ports"] == [["files.example", 443], ["127.0.0.1", 80]]
    assert set(there) == {"db1", "app1", "app2"}
    assert discovery.lookouts(services, ["orders", "files", "shop"]) == {
        "orders": [{"machine": "db1", "through": "orders"}], "files": [],
        "shop": [{"machine": "app1", "through": "shop"}, {"machine": "app2", "through": "app2"}],
    }
