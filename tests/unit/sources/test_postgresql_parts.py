# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of the postgresql_database source that need no server."""

from __future__ import annotations

import hashlib
import os
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConfigError, DamageError, SourceError
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources import postgresql_catalog as catalog
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources import postgresql_digest as digest
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources import postgresql_preflight as preflight
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources.postgresql_client import Client, quote
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources.postgresql_pipe import DumpStream, feed, psql_text
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources.postgresql_rows import RowSum
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources.postgresql_schema import SchemaHash
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources.postgresql_stage import knows_restrict
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources.postgresql_swap import side_name
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources.server import Server

KEY = bytes(range(32))
END = "\n--\n-- PostgreSQL database dump complete\n--\n\n"


@settings(deadline=None)
@given(st.text(min_size=1, max_size=63).filter(lambda name: len(name.encode("utf-8", "ignore")) <= 63 and "\0" not in name))
def test_side_names_fit_and_stay_unique(name: str) -> None:
    name = name.encode("utf-8", "ignore").decode() or "x"
    first, second = side_name(name, "lb", "20261122_171500_abcdef12"), side_name(name, "lb", "20261122_171500_abcdef13")
    assert first != second
    assert first != side_name(name, "was", "20261122_171500_abcdef12")
    for made in (first, second):
        assert len(made.encode()) <= 63
        assert made != name


def test_long_names_that_differ_at_the_end_stay_apart() -> None:
    assert side_name("x" * 62 + "a", "lb", "1") != side_name("x" * 62 + "b", "lb", "1")


@pytest.mark.parametrize(("value", "names"), [
    ("", []), ("public", ["public"]), ('"$user", public', ["$user", "public"]), ('"a, b","c""d" , e', ["a, b", 'c"d', "e"]), ('""', [""]),
])
def test_lists_of_names_are_split(value: str, names: list[str]) -> None:
    assert catalog.split_names(value) == names


def test_settings_are_quoted_by_kind() -> None:
    assert catalog.setting_value("search_path", '"$user", public') == "'$user', 'public'"
    assert catalog.setting_value("datestyle", "German, DMY") == "'German, DMY'"
    assert catalog.setting_value("search_path", "") == "''"
    assert catalog.setting_name("shop.flag") == '"shop"."flag"'
    assert catalog.literal("it's \\ x") == "E'it''s \\\\ x'"
    assert quote('a"b') == '"a""b"'


def test_row_sum_ignores_order_and_counts_duplicates() -> None:
    rows = [b"1\ta", b"2\tb", b"2\tb"]
    forward, backward, fewer = RowSum(KEY), RowSum(KEY), RowSum(KEY)
    forward.lines(rows)
    backward.lines(rows[::-1][:1])
    backward.lines(rows[::-1][1:])
    fewer.lines(rows[:2])
    assert (forward.rows, forward.hex) == (backward.rows, backward.hex)
    assert forward.hex != fewer.hex
    expected = sum(int.from_bytes(hashlib.blake2b(row, key=KEY, digest_size=32).digest(), "little") for row in rows) % (1 << 256)
    assert forward.hex == f"{expected:064x}"
    long = RowSum(KEY)
    piece = long.start()
    piece.update(b"1\t")
    piece.update(b"a")
    long.finish(piece)
    one = RowSum(KEY)
    one.lines([b"1\ta"])
    assert long.hex == one.hex


@pytest.mark.parametrize(("line", "plain"), [
    (b"16400\t0\t\\\\x0a00", b"16400\t0\t0a"), (b"16400\t0\t\\\\x0a0b", b"16400\t0\t0a0b"), (b"16400\t0\t\\\\x0a10", b"16400\t0\t0a10"),
    (b"16400\t7\t\\\\x0000", None), (b"16400\t7\t\\\\x", None),
])
def test_pages_of_zeros_are_holes(line: bytes, plain: bytes | None) -> None:
    assert digest.without_zeros(line) == plain


def _schema(*blocks: tuple[str, str]) -> SchemaHash:
    schema = SchemaHash(KEY)
    text = "--\n-- PostgreSQL database dump\n--\n\n-- Dumped from database version 15.4\nSET x = 1;\n\n"
    text += "".join(f"--\n-- Name: {name}; Type: TABLE; Schema: public; Owner: me\n--\n\n{body}\n\n" for name, body in blocks)
    data = (text + END).encode()
    for start in range(0, len(data), 7):
        schema.update(data[start:start + 7])
    assert schema.end_section()
    return schema


def test_schema_hash_is_by_object_and_ignores_order_and_tools() -> None:
    one = _schema(("a", "CREATE TABLE a (x int);"), ("b", "CREATE TABLE b ();"))
    two = _schema(("b", "CREATE TABLE b ();"), ("a", "CREATE TABLE a (x int);"))
    assert one.objects == two.objects
    assert list(one.objects) == ["TABLE public.a", "TABLE public.b"]
    other = _schema(("a", "CREATE TABLE a (x bigint);"), ("b", "CREATE TABLE b ();"))
    assert other.objects["TABLE public.a"] != one.objects["TABLE public.a"]
    assert other.objects["TABLE public.b"] == one.objects["TABLE public.b"]


def test_reworded_expressions_are_loosely_equal_and_changed_ones_are_not() -> None:
    before = _schema(("a", "CHECK (((s)::text = ANY ((ARRAY['new'::character varying, 'old'::character varying])::text[])))")).objects["TABLE public.a"]
    after = _schema(("a", "CHECK (((s)::text = ANY (ARRAY[('new'::character varying)::text, ('old'::character varying)::text])))")).objects["TABLE public.a"]
    changed = _schema(("a", "CHECK (((s)::text = ANY (ARRAY[('new'::character varying)::text, ('odd'::character varying)::text])))")).objects["TABLE public.a"]
    assert before[0] != after[0]
    assert before[1] == after[1]
    assert changed[1] != before[1]


def test_a_section_cut_short_is_noticed() -> None:
    schema = SchemaHash(KEY)
    schema.update(b"--\n-- Name: a; Type: TABLE; Schema: public; Owner: me\n--\nCREATE")
    assert not schema.end_section()


def _stream(code: str) -> DumpStream:
    return DumpStream([sys.executable, "-c", code], dict(os.environ), "test", 20, lambda piece: None)


def _read(stream: DumpStream) -> bytes:
    found, buffer = b"", bytearray(100)
    while size := stream.readinto(buffer):
        found += buffer[:size]
    return found


def test_dump_stream_takes_the_random_guard_out() -> None:
    code = r"""
import sys
sys.stdout.write('--\n-- PostgreSQL database dump\n--\n\n\\restrict ' + sys.argv[1] + '\n\nSET a = 1;\n' + 'x\n' * 2000 + '\\unrestrict other\n')
sys.stdout.write('--\n-- PostgreSQL database dump complete\n--\n\n\\unrestrict ' + sys.argv[1] + '\n\n')
"""
    made = []
    for key in ("aaa1", "bbb2"):
        with DumpStream([sys.executable, "-c", code, key], dict(os.environ), "test", 20, lambda piece: None) as stream:
            made.append(_read(stream))
            stream.finish()
    assert made[0] == made[1]
    assert b"restrict aaa1" not in made[0]
    assert b"unrestrict other" in made[0], "only the guard's own line goes"


@pytest.mark.parametrize(("code", "what"), [
    ("print('x')", "without its end"),
    ("import sys; print('-- PostgreSQL database dump complete\\n--'); sys.stderr.write('x: error: no such thing\\nDETAIL: secret'); sys.exit(1)",
     "no such thing"),
    ("import os, signal; print('x', flush=True); os.kill(os.getpid(), signal.SIGKILL)", "killed by signal 9"),
])
def test_dump_stream_accepts_only_a_good_end(code: str, what: str) -> None:
    with _stream(code) as stream:
        _read(stream)
        with pytest.raises(SourceError, match=what) as caught:
            stream.finish()
    assert "secret" not in str(caught.value)


def test_feed_reports_an_early_end_and_kills_on_errors() -> None:
    with pytest.raises(SourceError, match="no luck"):
        feed([sys.executable, "-c", "import sys; sys.stderr.write('psql: ERROR:  no luck'); sys.exit(3)"], dict(os.environ), "test", 20,
             (b"x" * 100000 for _number in range(100)), lambda size: None)

    def torn():
        yield b"a"
        raise DamageError("torn", "chunk 1")

    with pytest.raises(DamageError):
        feed([sys.executable, "-c", "import sys; sys.stdin.read()"], dict(os.environ), "test", 20, torn(), lambda size: None)


def test_a_tool_that_stalls_is_given_up() -> None:
    with pytest.raises(SourceError, match="no progress"):
        feed([sys.executable, "-c", "import time; time.sleep(60)"], dict(os.environ), "test", 0.2, (b"x" * 100000 for _n in range(100)), lambda size: None)
    with _stream("import time; time.sleep(60)") as stream:
        stream._process.timeout = 0.2
        with pytest.raises(SourceError, match="no progress"):
            _read(stream)


def test_the_guard_of_a_restore_is_new_each_time() -> None:
    one, two = b"".join(psql_text([b"x"], True)), b"".join(psql_text([b"x"], True))
    assert one != two
    key = one.split()[1]
    assert one == b"\\restrict " + key + b"\nx\n\\unrestrict " + key + b"\n"
    assert b"".join(psql_text([b"x"], False)) == b"x"


@pytest.mark.parametrize(("version", "known"), [
    (130021, False), (130022, True), (150013, False), (150014, True), (170006, True), (180000, True), (120050, False),
])
def test_versions_that_guard(version: int, known: bool) -> None:
    assert knows_restrict(version) is known


def _content(**changes) -> digest.Content:
    content = digest.Content(15)
    content.tables = {"public.a": {"rows": 3, "hash": "01"}}
    content.sequences = {("public", "s"): (5, True)}
    content.large_objects = {"count": 0, "hash": "0", "pages": "0"}
    content.objects = {"TABLE public.a": ("1", "2")}
    content.properties = {"owner": "me"}
    for key, value in changes.items():
        setattr(content, key, value)
    return content


@pytest.mark.parametrize(("changes", "difference"), [
    ({"tables": {"public.a": {"rows": 2, "hash": "02"}}}, "table public.a: 3 rows expected, 2 found"),
    ({"tables": {"public.a": {"rows": 3, "hash": "02"}}}, "table public.a: 3 rows expected, the content of rows differs"),
    ({"tables": {}}, "table public.a is missing: 3 rows expected"),
    ({"sequences": {("public", "s"): (5, False)}}, "sequence public.s: 5 expected, 5 (not called) found"),
    ({"objects": {"TABLE public.a": ("3", "4")}}, "schema: TABLE public.a differs"),
    ({"objects": {}}, "schema: TABLE public.a is missing"),
    ({"properties": {"owner": "you"}}, "database property owner differs"),
    ({"large_objects": {"count": 1, "hash": "1", "pages": "0"}}, "large objects: 0 expected, 1 found, or their content, owner or grants differ"),
])
def test_comparison_names_what_differs(changes, difference: str) -> None:
    comparison = digest.compare(_content(), _content(**changes))
    assert not comparison.equal
    assert comparison.differences == [difference]


def test_comparison_accepts_rewording_and_newer_servers() -> None:
    assert digest.compare(_content(), _content(objects={"TABLE public.a": ("9", "2")})).equal
    assert digest.compare(_content(), _content(objects={"TABLE public.a": ("9", "9")}, major=16)).equal
    assert not digest.compare(_content(), _content(objects={}, major=16)).equal


def test_content_survives_the_tree() -> None:
    content = _content(matviews={"public.m": {"populated": True, "rows": 1, "hash": "7"}})
    again = digest.from_entries(content.entries())
    assert again == content
    assert again.digest(KEY) == content.digest(KEY)
    with pytest.raises(DamageError):
        digest.from_entries([])


def _client(tmp_path, **config) -> Client:
    return Client({"database": "x", "port": 1, **config}, "shop.db")


def _plan(client: Client, config: dict, directory) -> str:
    return preflight.bring_up_plan(client, Server(config, "shop.db", "postgresql:1"), None if directory is None else str(directory))


def test_a_server_that_is_down_comes_up_only_without_replacing_data(tmp_path) -> None:
    client, both = _client(tmp_path), {"server": {"start": ["true"]}, "provision": ["true"]}
    whole, other = tmp_path / "whole", tmp_path / "other"
    whole.mkdir()
    (whole / "PG_VERSION").write_text("15")
    other.mkdir()
    (other / "file").write_text("x")
    assert _plan(client, both, whole) == "start"
    assert _plan(client, both, tmp_path / "absent") == "provision"
    with pytest.raises(SourceError, match="never replaced"):
        _plan(client, both, other)
    with pytest.raises(ConfigError, match="provision"):
        _plan(client, {"server": {"start": ["true"]}}, tmp_path / "absent")
    with pytest.raises(ConfigError, match="server.start"):
        _plan(client, {}, whole)


def test_passwords_come_from_files_only(tmp_path) -> None:
    secret = tmp_path / "password"
    secret.write_text("canary \n")
    client = _client(tmp_path, password_file=str(secret))
    assert client.password() == "canary "
    assert client.environment("db")["PGPASSWORD"] == "canary "
    with pytest.raises(ConfigError, match="password file"):
        _client(tmp_path, password_file=str(tmp_path / "none")).password()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(max_size=30), max_size=8))
def test_psql_text_passes_everything_on(pieces: list[bytes]) -> None:
    assert b"".join(pieces) in b"".join(psql_text(pieces, True))
