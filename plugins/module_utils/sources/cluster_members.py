# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The servers of one replicated cluster: which there are, which of them is the primary, and how one streams from another.

A service's entry is written from the place of the host that the catalog names: its source's own options are that host's, and
``entry["members"]`` is source -> the others, each {"host", and the options in which it differs}. entry_at() writes it anew from
the place of another member, so that everything else knows one server only: the one it works on.
"""

from __future__ import annotations

import os
import re
from typing import Any, Mapping, Sequence

from ..errors import ConfigError, ConflictError, LifeboatError
from .server import loopback

#: What a member may say of itself; everything else is as for the source.
OPTIONS = (
    "data_directory", "address", "port", "socket", "user", "password_file", "sslmode", "sslrootcert", "sslcert", "sslkey", "bin_dir",
    "config_directory", "wal_directory", "tablespace_map", "server", "provision", "conninfo", "replication_slot",
)
#: libpq's parameters that a standby may use to reach its primary. A password is none: a catalog is stored with every snapshot.
PARAMETERS = (
    "host", "hostaddr", "port", "user", "dbname", "passfile", "application_name", "connect_timeout", "keepalives", "keepalives_idle",
    "keepalives_interval", "keepalives_count", "tcp_user_timeout", "sslmode", "sslrootcert", "sslcert", "sslkey", "sslcrl", "ssl_min_protocol_version",
    "gssencmode", "krbsrvname", "channel_binding", "require_auth",
)
#: Of these each member has its own.
_OWN = ("host", "hostaddr", "port", "application_name")
_PAIR = re.compile(r"\s*([a-z_]+)\s*=\s*('(?:[^'\\]|\\.)*'|[^\s'\\]+)(?=\s|\Z)")


def source_of(entry: Mapping[str, Any]) -> str:
    """The name of the source that has members; "" when none has."""
    return next(iter(entry.get("members") or {}), "")


def hosts_of(entry: Mapping[str, Any], host: str = "") -> list[str]:
    """The hosts of a cluster, that of the entry first; none when the service has no members. host: instead of the entry's own."""
    name = source_of(entry)
    return [host or home(entry), *(str(one["host"]) for one in entry["members"][name])] if name else []


def home(entry: Mapping[str, Any]) -> str:
    """The inventory host from whose place an entry is written."""
    name = source_of(entry)
    return str((entry["sources"][name] if name else {}).get("host") or entry.get("host") or "")


def entry_at(entry: Mapping[str, Any], host: str) -> dict[str, Any]:
    """The entry as it would be if the catalog had named this member. Raises ConfigError when it is none."""
    name = source_of(entry)
    if not name or host == home(entry):
        return dict(entry)
    source, others = dict(entry["sources"][name]), [dict(one) for one in entry["members"][name]]
    mine = next((one for one in others if one["host"] == host), None)
    if mine is None:
        raise ConfigError(f"{host!r} is no member of the cluster", f"source {name}", f"members: {', '.join(hosts_of(entry))}")
    # what a member does not say is as the first one has it; what that one said of itself does not fit another host's member any more
    former = {"host": home(entry), **{option: source.get(option) for option in OPTIONS if option in source or option in mine}}
    rest = [{**{option: source.get(option) for option in OPTIONS if option in mine and option not in one}, **one} for one in others if one is not mine]
    moved = {**source, **mine, "host": host, "conninfo": text_of(_shared(source), mine)}
    return {**entry, "sources": {**entry["sources"], name: moved}, "members": {**entry["members"], name: [former, *rest]}}


def text_of(shared: Mapping[str, str], member: Mapping[str, Any]) -> str:
    """A member's conninfo with what it has in common with the others."""
    return format_conninfo({**shared, **parse_conninfo(str(member.get("conninfo") or ""))})


def _shared(source: Mapping[str, Any]) -> dict[str, str]:
    return {name: value for name, value in parse_conninfo(str(source.get("conninfo") or "")).items() if name not in _OWN}


def parse_conninfo(text: str) -> dict[str, str]:
    """``host=db1 user=replicator`` as a mapping. Raises ConfigError for what libpq would not read, and for a password."""
    found: dict[str, str] = {}
    position = 0
    while text[position:].strip():
        pair = _PAIR.match(text, position)
        if pair is None:
            raise ConfigError("a conninfo cannot be read", "conninfo", "write host=… port=… user=… passfile=…, values with blanks in single quotes")
        name, value = pair.groups()
        if name == "password":
            raise ConfigError("a conninfo holds a password, and catalogs are stored with every snapshot", "conninfo",
                              "write it to a file, and passfile=/that/file")
        if name not in PARAMETERS:
            raise ConfigError(f"a conninfo has the unknown parameter {name!r}", "conninfo", f"known: {', '.join(PARAMETERS)}")
        found[name] = re.sub(r"\\(.)", r"\1", value[1:-1] if value.startswith("'") else value)
        position = pair.end()
    return found


def format_conninfo(parameters: Mapping[str, str]) -> str:
    """The mapping as libpq reads it."""
    def quoted(value: str) -> str:
        return value if re.fullmatch(r"[A-Za-z0-9_./:-]+", value) else "'" + re.sub(r"(['\\])", r"\\\1", value) + "'"

    return " ".join(f"{name}={quoted(value)}" for name, value in parameters.items())


def slot_of(member: Mapping[str, Any]) -> str:
    """The slot through which a member streams, on whichever server is its primary."""
    return str(member.get("replication_slot") or re.sub(r"[^a-z0-9_]", "_", f"lifeboat_standby_{member['host']}".lower())[:63])


def way_between(entry: Mapping[str, Any], primary: str, standby: str) -> dict[str, Any]:
    """How one member streams from another: {"primary", "member", "slot", "conninfo": {parameter: value, no password}}. Raises ConfigError."""
    name = source_of(entry)
    there, here = entry_at(entry, primary), entry_at(entry, standby)
    source = there["sources"][name]
    way = parse_conninfo(str(source.get("conninfo") or ""))
    if "hostaddr" not in way:
        way.setdefault("host", primary)
    way.setdefault("port", str(source.get("port") or 5432))
    way.setdefault("user", str(source.get("user") or "postgres"))
    own = parse_conninfo(str(here["sources"][name].get("conninfo") or ""))
    # what the standby's own host has: its files, its name
    way.update({key: own[key] for key in ("passfile", "sslcert", "sslkey", "sslrootcert") if key in own})
    way["application_name"] = own.get("application_name") or standby
    if "sslmode" not in way and not loopback(way.get("hostaddr") or way["host"]) and not way.get("host", "").startswith("/"):
        way["sslmode"] = "verify-full"
    return {"primary": primary, "member": standby, "slot": slot_of({**here["sources"][name], "host": standby}), "conninfo": way}


def judge(answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Which member is what: {"primary": host or None, "standbys": streaming ones, "down": hosts, "silent": hosts, "problems": [LifeboatError]}.

    answers: what each member said (cluster_roles.ask), {"host", "error"} for one that could not be asked.
    """
    answers = [dict(one) for one in answers]
    writable = [one for one in answers if one.get("role") == "primary"]
    problems: list[LifeboatError] = []
    where = ", ".join(f"{one['host']} ({said(one)})" for one in writable)
    if len(writable) > 1:
        problems.append(ConflictError(
            "two servers of the cluster take writes (split brain)", where,
            "decide whose writes count, stop the other one, then run the same command again; reseed what was stopped",
        ))
    identities = {str(one["system_identifier"]) for one in answers if one.get("role") in ("primary", "standby")}
    if len(identities) > 1:
        told = ", ".join(f"{one['host']} is {one['system_identifier']}" for one in answers if one.get("role") in ("primary", "standby"))
        problems.append(ConflictError("the members are servers of different clusters", told, "correct address and port of the members in the catalog"))
    primary = writable[0] if len(writable) == 1 else None
    follow = [one for one in answers if one.get("role") == "standby" and one.get("receiving") == "streaming"
              and (primary is None or one.get("timeline") == primary.get("timeline"))]
    return {
        "primary": primary["host"] if primary else None, "standbys": [one["host"] for one in follow],
        "down": [one["host"] for one in answers if one.get("role") == "down"], "silent": [one["host"] for one in answers if not one.get("role")],
        "problems": problems,
    }


def choose(entry: Mapping[str, Any], answers: Sequence[Mapping[str, Any]]) -> tuple[str, list[str]]:
    """(the member that a capture reads, warnings). Raises ConflictError when no member can be relied on."""
    found = judge(answers)
    if found["problems"]:
        raise found["problems"][0]
    wanted = str(entry["sources"][source_of(entry)].get("capture_from") or "primary")
    warnings = [f"{one['host']} does not answer ({one.get('error') or 'no reason given'})" for one in answers if one["host"] in found["silent"]]
    warnings += [f"{host} is down" for host in found["down"]]
    if wanted == "standby" and found["standbys"]:
        return str(found["standbys"][0]), warnings
    if found["primary"] is None:
        told = ", ".join(f"{one['host']}: {said(one)}" for one in answers)
        raise ConflictError("no member of the cluster is a primary", told, "promote or start the one that should be, then run the same command again")
    if wanted == "standby":
        warnings.append(f"no standby streams: captured from the primary {found['primary']}")
    return str(found["primary"]), warnings


def said(one: Mapping[str, Any]) -> str:
    """One member in words."""
    if not one.get("role"):
        return f"no answer, {one.get('error')}" if one.get("error") else "no answer"
    if one["role"] == "down":
        return "down"
    return f"{one['role']} on timeline {one.get('timeline')} at {one.get('position')}, system {one.get('system_identifier')}"


def passfile_of(parameters: Mapping[str, str], uid: int) -> dict[str, str]:
    """The parameters with the password file that the server's own user would find: libpq looks into the home of whoever asks."""
    import pwd

    if "passfile" in parameters:
        return dict(parameters)
    try:
        place = os.path.join(pwd.getpwuid(uid).pw_dir, ".pgpass")
    except KeyError:
        return dict(parameters)
    return {**parameters, "passfile": place} if os.path.isfile(place) else dict(parameters)
