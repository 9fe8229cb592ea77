# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of tables as people write them; new names."""

from __future__ import annotations

import hypothesis
import pytest
from hypothesis import strategies

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConfigError
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline.extract import suffix
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline.inspect import Point
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline.targets import Position
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources import cluster_extract_names as names


@pytest.mark.parametrize(("given", "found"), [
    ([], []),
    (["public.orders"], [("public", "orders")]),
    (["public.Orders , audit.log"], [("public", "Orders"), ("audit", "log")]),
    (["public.orders", "public.orders"], [("public", "orders")]),
    (['"Weird ""name""".";DROP, it.--"'], [('Weird "name"', ";DROP, it.--")]),
    # a list that was split at every comma on its way
    (['public."a', 'b"', "public.c"], [("public", "a,b"), ("public", "c")]),
    (["public.new\nline"], [("public", "new\nline")]),
])
def test_tables(given: list[str], found: list[tuple[str, str]]) -> None:
    assert names.tables(given) == found


@pytest.mark.parametrize("given", [
    "orders", "a.b.c", ".b", "a.", 'a."b', 'a"b".c', '"".x', "a.b;.c d.e", "public." + "x" * 64, 'public."a\0b"', ",", "a.b,,c.d",
])
def test_tables_that_cannot_be_read(given: str) -> None:
    with pytest.raises(ConfigError):
        names.tables([given])


@hypothesis.given(strategies.lists(strategies.tuples(*2 * [strategies.text(
    strategies.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=15)]), max_size=3, unique=True))
def test_any_name_can_be_written(wanted: list[tuple[str, str]]) -> None:
    def quoted(name: str) -> str:
        return '"' + name.replace('"', '""') + '"'

    text = ",".join(f"{quoted(schema)}.{quoted(name)}" for schema, name in wanted)
    assert names.tables([text]) == names.tables(text.split(",")) == wanted


@pytest.mark.parametrize("name", ["", "x" * 64, "ü" * 32, "a\nb", " a", "pg_mine", "PG_mine", "a\0"])
def test_new_names_that_are_refused(name: str) -> None:
    with pytest.raises(ConfigError):
        names.new_name("schema", name)


@pytest.mark.parametrize(("position", "ending"), [
    (None, "20300131t120000z"), (Position("immediate"), "20300131t120000z"), (Position("time", "2030-02-01T01:30:00+02:00"), "20300131t233000z"),
    (Position("latest"), "20300201t000001z"), (Position("lsn", "0/16B3740"), "lsn_0_16b3740"), (Position("xid", "742"), "xid_742"),
    (Position("name", 'Before; "Deploy"', "3"), "at_before_deploy_t3"),
])
def test_what_tells_a_target_in_a_name(position: Position | None, ending: str) -> None:
    point = Point("p", "orders", "2030-01-31T12:00:00.5Z", ["db"], positions={"db": position} if position else {})
    assert suffix(point, "db", "2030-02-01T00:00:01Z") == ending
    assert names.new_name("database", names.joined("ü" * 31, ending)).endswith(f"ü_{ending}")
