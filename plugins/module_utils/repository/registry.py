# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""URL scheme -> backend. A new kind of repository is one file, its import and one line here."""

from __future__ import annotations

from typing import Any, Callable

from ..errors import ConfigError
from .backend import Backend
from .directory import DirectoryBackend


def _s3(config: dict[str, Any]) -> Backend:
    from .s3 import S3Backend

    return S3Backend(config)


#: Scheme -> what makes a backend of a URL.
_BACKENDS: dict[str, Callable[[str], Backend]] = {
    DirectoryBackend.scheme: DirectoryBackend,
}
#: Scheme -> what makes a backend of all that the catalog says of a repository.
_CONFIGURED: dict[str, Callable[[dict[str, Any]], Backend]] = {
    "s3": _s3,
}


def schemes() -> list[str]:
    return sorted([*_BACKENDS, *_CONFIGURED])


def backend_for(config: dict[str, Any]) -> Backend:
    """The backend of a catalog repository entry ({"url": ...})."""
    url = str(config.get("url", ""))
    scheme = url.split("://", 1)[0] if "://" in url else ""
    if scheme in _CONFIGURED:
        return _CONFIGURED[scheme](config)
    if scheme not in _BACKENDS:
        raise ConfigError(f"repository scheme {scheme or '(none)'} is not known", url, f"use one of: {', '.join(schemes())}")
    return _BACKENDS[scheme](url)
