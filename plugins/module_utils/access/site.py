# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""What a catalog says about access: its services, where their objects are, and by which names their roles are known outside.

Rights belong to a service and a role. Who acts is an *identity*: an AppRole of Vault, a user or role of the object store. A host has one
identity per role for all services on it, because it has one set of credentials; what runs on the controller has one per role.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any, Mapping
from urllib.parse import urlsplit

from ..errors import ConfigError
from ..keys import policies

#: Every role, in the order in which it is shown.
ROLES = ("backup", "restore", "drill", "prune", "operator", "rotate", "auditor", "bootstrap", "retire", "shred")
#: What takes back what cannot be had again is given when it is asked for by name.
USUAL = ROLES[:-2]
#: What runs on the hosts of a service; the other roles run on the controller.
ON_HOSTS = ("backup", "restore")

_PLACEHOLDER = re.compile(r"\{([a-z]*)\}")
#: What names of AppRoles, users and roles of stores may consist of.
_IDENTITY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}")
#: A wildcard or variable in a path would widen a policy.
_PLAIN = re.compile(r"[A-Za-z0-9._/-]*")
_DAY = 86400.0


@dataclass(frozen=True)
class Place:
    """Where the objects of a repository are. lock_days: how far a lock may reach from now, None without object lock."""

    endpoint: str
    bucket: str
    base: str
    lock_days: int | None = field(compare=False)
    config: Mapping[str, Any] = field(compare=False)

    @classmethod
    def of(cls, repository: Mapping[str, Any]) -> Place | None:
        """None for a repository that is not in a bucket."""
        url = str(repository.get("url", ""))
        parts = urlsplit(url)
        if parts.scheme != "s3":
            return None
        prefix = parts.path.strip("/")
        if not parts.netloc or not _PLAIN.fullmatch(parts.netloc + prefix):
            raise ConfigError("bucket and prefix of a repository cannot stand in a policy", url, "use letters, digits, '.', '_', '-' and '/' only")
        lock = repository.get("object_lock")
        days = math.ceil(float(lock["for"]) / _DAY) + 1 if lock else None
        return cls(str(repository.get("endpoint") or ""), parts.netloc, f"{prefix}/" if prefix else "", days, repository)


@dataclass(frozen=True)
class Service:
    """name: of the catalog; key: the same with keys.prefix, as it stands in the names of keys and policies. places: its repository and the copies."""

    name: str
    key: str
    hosts: tuple[str, ...]
    places: tuple[Place, ...]


class Site:
    """The services of a normalised catalog. identities: role -> template with {ecosystem}, {host}, {service}, {role}.

    drill: the services that the drill role may open; it has no rights over others. listing: ``service``, ``bucket``, or as the store needs it.
    """

    def __init__(
        self, document: Mapping[str, Any], roles: tuple[str, ...], identities: Mapping[str, str], drill: tuple[str, ...], listing: str = "",
    ) -> None:
        if not document.get("services") or not document.get("ecosystem"):
            raise ConfigError("no catalog was given", "option catalog", "give the variable lifeboat_catalog, which the catalog inventory sets")
        for role in (*roles, *identities):
            if role not in ROLES:
                raise ConfigError(f"unknown role {role!r}", "access", f"a role is one of: {', '.join(ROLES)}")
        self.ecosystem = str(document["ecosystem"])
        self.keys: dict[str, Any] = dict(document.get("keys") or {})
        self.roles = tuple(role for role in ROLES if role in roles)
        self._templates = {role: identities.get(role) or _template(role) for role in ROLES}
        prefix = str(self.keys.get("prefix") or "") if self.keys.get("provider") == "vault" else ""
        self.services = [
            Service(name, prefix + name, _hosts(entry), _places(document, entry)) for name, entry in sorted(document["services"].items())
        ]
        mount = str(self.keys.get("mount") or "transit").strip("/")
        for service in self.services:
            policies.check_names(service.name, mount)
            policies.check_names(service.key, mount)
        unknown = sorted(set(drill) - {service.name for service in self.services})
        if unknown:
            raise ConfigError(f"no service {unknown[0]!r} in the catalog", "services that are drilled", "correct lifeboat_access_drill")
        self._drill = drill
        self._listing = listing
        self._keep_apart()

    def _keep_apart(self) -> None:
        """One identity in two roles would have the rights of both."""
        holders: dict[str, str] = {}
        for role in self.roles:
            for identity in self.by_identity(role):
                other = holders.setdefault(identity, role)
                if other != role:
                    raise ConfigError(f"{identity} would be {other} and {role} at once", "names of roles", "write {role} into the names")

    def lists_bucket(self, place: Place) -> bool:
        """Whether names of the whole bucket may be listed, not only those of a service.

        To Amazon S3 an object that is absent is one that is refused, unless the caller may list the bucket; a condition on the prefix does
        not hold for a request that has none.
        """
        host = urlsplit(place.endpoint).hostname or ""
        return self._listing == "bucket" if self._listing else not host or host.endswith(".amazonaws.com")

    def of_role(self, role: str) -> list[Service]:
        """The services over which a role has rights."""
        return [service for service in self.services if role != "drill" or service.name in self._drill]

    def identities(self, service: Service, role: str) -> tuple[str, ...]:
        """Who acts in this role for this service."""
        return tuple(sorted({self._named(role, service.name, host) for host in service.hosts}))

    def by_identity(self, role: str) -> dict[str, list[Service]]:
        """Identity -> the services it has this role for."""
        found: dict[str, list[Service]] = {}
        for service in self.of_role(role):
            for identity in self.identities(service, role):
                found.setdefault(identity, []).append(service)
        return found

    def _named(self, role: str, service: str, host: str) -> str:
        values = {"ecosystem": self.ecosystem, "host": host, "service": service, "role": role}
        template = self._templates[role]
        unknown = [word for word in _PLACEHOLDER.findall(template) if word not in values]
        if unknown:
            raise ConfigError(
                f"unknown placeholder {unknown[0]!r} in the name of role {role}", template, f"it takes: {', '.join('{' + each + '}' for each in values)}",
            )
        name = _PLACEHOLDER.sub(lambda match: values[match.group(1)], template)
        if not _IDENTITY.fullmatch(name):
            raise ConfigError(
                f"the name of role {role} cannot be used by Vault and object stores", repr(name), "use up to 64 letters, digits, '_', '.', '@' and '-'",
            )
        return name


def _template(role: str) -> str:
    return "lifeboat-{ecosystem}-{host}-{role}" if role in ON_HOSTS else "lifeboat-{ecosystem}-{role}"


def _hosts(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """The hosts that hold data of a service."""
    sources = (entry.get("sources") or {}).values()
    return tuple(sorted({str(host) for host in (entry.get("host"), *(source.get("host") for source in sources)) if host}))


def _places(document: Mapping[str, Any], entry: Mapping[str, Any]) -> tuple[Place, ...]:
    """Where a service's objects are: its repository, and the copies that it has of it (all there are, if it does not say which)."""
    known: Mapping[str, Mapping[str, Any]] = document.get("repositories") or {}
    original = str(entry.get("repository") or document.get("default_repository"))
    chosen = entry.get("copies")
    copies = [name for name, one in known.items() if one.get("copy_of") == original] if chosen is None else list(chosen)
    found = (Place.of(known[name]) for name in (original, *copies) if name in known)
    return tuple(place for place in found if place is not None)
