# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is picked, what is refused, and the command that would work."""

from __future__ import annotations

import re
from typing import Any

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConfigError
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.plan import pick

SERVICES: dict[str, dict[str, Any]] = {
    "identity": {"requires": [], "priority": None, "tier": "gold", "consistency_group": None},
    "inventory": {"requires": [], "priority": None, "tier": "silver", "consistency_group": None},
    "mail": {"requires": [], "priority": None, "tier": "silver", "consistency_group": None},
    "orders": {"requires": [{"service": "identity", "kind": "hard"}, {"service": "inventory", "kind": "hard"}, {"service": "mail", "kind": "soft"}],
               "priority": None, "tier": "gold", "consistency_group": "checkout"},
    "payments": {"requires": [{"service": "orders", "kind": "hard"}], "priority": None, "tier": "gold", "consistency_group": "checkout"},
    "gateway": {"requires": [{"service": "payments", "kind": "hard"}], "priority": None, "tier": "gold", "consistency_group": None},
}
DOCUMENT: dict[str, Any] = {"ecosystem": "shop", "production": False, "tiers": {}, "services": SERVICES}


def picked(**options: Any) -> list[str]:
    return pick.pick_services(DOCUMENT, **options).picked


def test_everything_by_default_in_order() -> None:
    assert picked() == ["identity", "inventory", "mail", "orders", "payments", "gateway"]


@pytest.mark.parametrize("services", ["gateway, identity", ["gateway", "identity"], "identity,gateway,identity,"])
def test_by_name(services: object) -> None:
    assert picked(services=services) == ["identity", "gateway"]


@pytest.mark.parametrize("expression, expected", [
    ("services[?tier=='silver'].name", ["inventory", "mail"]),
    ("services[?tier=='silver']", ["inventory", "mail"]),
    ("services[?length(requires) > `2`].name | [0]", None),
    ("services[0].name", ["identity"]),
])
def test_by_jmespath(expression: str, expected: list[str] | None) -> None:
    if expected is None:
        with pytest.raises(ConfigError, match="consistency group checkout would be torn"):
            picked(select_by=expression)
    else:
        assert picked(select_by=expression) == expected


@pytest.mark.parametrize("options, message", [
    ({"services": "identiy"}, 'unknown service "identiy": the pick; did you mean "identity"?'),
    ({"services": 7}, "lifeboat_services is not a list of names: 7; write lifeboat_services=orders,payments"),
    ({"services": " , "}, "lifeboat_services names no service:  , ; write lifeboat_services=orders,payments"),
    ({"services": "mail", "select_by": "services"}, "lifeboat_services and lifeboat_select together: the command line; give one of them"),
    ({"select_by": "services[?"}, "lifeboat_select is not a JMESPath expression: services[?"),
    ({"select_by": "services[?tier=='bronze'].name"}, "lifeboat_select matches no service: services[?tier=='bronze'].name"),
    ({"select_by": "services[].requires"}, "lifeboat_select gives something that is not a service: []; end the expression with .name"),
    ({"select_by": "ecosystem"}, 'unknown service "shop": the pick; services are'),
    ({"services": "mail", "scope": "groups"}, 'unknown scope "groups": lifeboat_scope; did you mean "group"?'),
    ({"services": "orders"}, "consistency group checkout would be torn: orders without payments; "
     "pick the whole group: ansible-playbook lifeboat.recovery.restore -i CATALOG -e lifeboat_services=orders,payments"),
    ({"services": "payments", "scope": "requirements", "verb": "rollback", "inventory": "shop/"}, None),
    ({"services": "mail", "limit": ["identity"]}, "--limit leaves none of the picked services: mail; widen or drop --limit"),
    ({"limit": []}, "--limit leaves none of the picked services: gateway, identity, inventory, mail, orders, payments; widen or drop --limit"),
    ({"limit": ["orders", "payments"], "scope": "requirements", "inventory": "shop/"},
     "scope requirements needs services outside --limit: identity (required by orders), inventory (required by orders); run: ansible-playbook "
     "lifeboat.recovery.restore -i shop/ --limit identity,inventory,orders,payments -e lifeboat_services=orders,payments -e lifeboat_scope=requirements"),
    ({"services": "orders", "limit": ["orders"], "scope": "group"},
     "scope group needs services outside --limit: payments (in consistency group checkout); run: ansible-playbook "
     "lifeboat.recovery.restore -i CATALOG --limit orders,payments -e lifeboat_services=orders -e lifeboat_scope=group"),
    ({"limit": ["orders", "mail"]}, "consistency group checkout would be torn: orders without payments"),
])
def test_refusals(options: dict[str, Any], message: str | None) -> None:
    if message is None:
        assert picked(**options) == ["identity", "inventory", "orders", "payments"]
        return
    with pytest.raises(ConfigError) as caught:
        picked(**options)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def test_scopes_say_why() -> None:
    result = pick.pick_services(DOCUMENT, "payments", scope="requirements")
    assert result.picked == ["identity", "inventory", "orders", "payments"] and result.asked == ["payments"]
    assert result.added == {"identity": "required by payments", "inventory": "required by payments", "orders": "required by payments"}
    result = pick.pick_services(DOCUMENT, "payments", scope="group")
    assert result.added == {"orders": "in consistency group checkout"}


def test_limit_narrows() -> None:
    assert picked(limit=["mail", "identity", "some-machine"]) == ["identity", "mail"]
    assert picked(services="mail,inventory", limit=["mail"]) == ["mail"]


def test_a_backup_may_take_half_a_group() -> None:
    assert picked(services="orders", verb="backup") == ["orders"]


def test_dependants_are_named_with_their_chain() -> None:
    result = pick.pick_services(DOCUMENT, "identity")
    assert result.dependants == {"orders": ["orders", "identity"], "payments": ["payments", "orders", "identity"],
                                 "gateway": ["gateway", "payments", "orders", "identity"]}
    assert pick.pick_services(DOCUMENT, "mail").dependants == {"orders": ["orders", "mail"]}
    assert pick.pick_services(DOCUMENT).dependants == {}


def test_live_dependants_need_a_decision() -> None:
    live = {"orders": ["orders", "identity"]}
    pick.refuse_dependants(live, "stop")
    pick.refuse_dependants(live, "ignore")
    pick.refuse_dependants({}, "")
    with pytest.raises(ConfigError, match=re.escape("1 live service outside the pick would write into what is restored: orders -> identity; "
                                                    "pick it too, or add -e lifeboat_dependants=stop")):
        pick.refuse_dependants(live)
    with pytest.raises(ConfigError, match='unknown choice "kill": lifeboat_dependants; use stop or ignore'):
        pick.refuse_dependants({}, "kill")


def test_commands_can_be_pasted() -> None:
    assert pick.command("restore", "my shop/", ["a", "b"], target="2026-11-22 17:00:00Z", scope="", services=None) == (
        "ansible-playbook lifeboat.recovery.restore -i 'my shop/' --limit a,b -e 'lifeboat_target=2026-11-22 17:00:00Z'")
    assert pick.command("backup") == "ansible-playbook lifeboat.recovery.backup -i CATALOG"
