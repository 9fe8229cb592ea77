# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Which repository is a copy of which, and which copies a service has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Mapping

from .problems import nearest

if TYPE_CHECKING:
    from .validation import Context

Repositories = Mapping[str, Mapping[str, Any]]


def original(repositories: Repositories) -> str:
    """The default repository: the first one that is no copy."""
    return next((name for name, repository in repositories.items() if "copy_of" not in repository), next(iter(repositories)))


def of(repositories: Repositories, repository: str, chosen: list[str] | None) -> list[str]:
    """The copies of a service in ``repository``: those that it or its tier names, else all there are."""
    return chosen if chosen is not None else [name for name, one in repositories.items() if one.get("copy_of") == repository]


def validate(context: Context) -> None:
    """Record every fault of meaning about copies."""
    repositories: dict[str, dict[str, Any]] = context.values.get("repositories") or {}
    _originals(context, repositories)
    tiers: dict[str, dict[str, Any]] = context.values.get("tiers") or {}
    for section, entries in (("tiers", tiers), ("services", context.services)):
        for name, entry in entries.items():
            who = f"tier {name}" if section == "tiers" else name
            asked = entry.get("repository")
            if asked in repositories and "copy_of" in repositories[asked]:
                of_what = repositories[asked]["copy_of"]
                context.fault(f'{who} has the repository "{asked}", which is a copy of {of_what}', context.at(section, name, "repository"),
                              f"name {of_what}; its copies follow")
            tier = tiers.get(str(entry.get("tier"))) or {}
            mine = asked or tier.get("repository") or (original(repositories) if repositories else "")
            for index, copy in enumerate(entry.get("copies") or []):
                _chosen(context, repositories, (section, name, "copies", index), f'{who} has the copy "{copy}"', copy, mine)


def _chosen(context: Context, repositories: Repositories, place: tuple[str | int, ...], what: str, copy: str, repository: str) -> None:
    node = context.at(*place)
    if copy not in context.declared("repositories"):
        context.fault(f"{what}, which is unknown", node, nearest(copy, context.declared("repositories"), "repositories are"))
    elif copy in repositories and repositories[copy].get("copy_of") != repository:
        known = of(repositories, repository, None)
        context.fault(f"{what}, which is no copy of {repository}", node, f"its copies are {', '.join(known)}" if known else f"add copy_of: {repository} to it")


def _originals(context: Context, repositories: Repositories) -> None:
    seen: dict[str, str] = {}
    for name, repository in repositories.items():
        of_what, url = repository.get("copy_of"), str(repository.get("url"))
        if url in seen:
            context.fault(f"repositories {seen[url]} and {name} are one place ({url})", context.at("repositories", name, "url"), "give each a url of its own")
        seen.setdefault(url, name)
        if of_what is None:
            if "every" in repository:
                context.fault(f"repository {name} is copied every {repository['every']:g}s and is no copy", context.at("repositories", name, "every"),
                              "add copy_of: NAME, or remove every")
            continue
        node = context.at("repositories", name, "copy_of")
        if of_what == name:
            context.fault(f"repository {name} is a copy of itself", node, "name the repository that services write to")
        elif of_what not in context.declared("repositories"):
            context.fault(f'repository {name} is a copy of "{of_what}", which is unknown', node,
                          nearest(of_what, [one for one in context.declared("repositories") if one != name], "repositories are"))
        elif "copy_of" in repositories.get(of_what, {}):
            context.fault(f"repository {name} is a copy of {of_what}, which is a copy itself", node, f"name its original: {repositories[of_what]['copy_of']}")
