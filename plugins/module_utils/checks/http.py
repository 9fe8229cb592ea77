# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""HTTP probe: {http: url, expect_status: 200, json: JMESPath, timeout: seconds}. No proxies, redirects are answers."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any

from ..errors import CheckError, ConfigError
from ..libraries import need
from . import expect

if TYPE_CHECKING:
    from ..spec import Spec

_LIMIT = 4 << 20


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_args: Any, **_options: Any) -> None:
        return None  # a redirect to a log-in page is not a healthy answer


def probe(spec: Spec, entry: dict[str, Any], timeout: float) -> Any:
    """The value of ``json`` in the answer, or the status code when there is none."""
    url = str(entry["http"])
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise ConfigError("not an http or https URL", expect.without_secrets(url), "")
    wanted = int(entry.get("expect_status") or 200)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect())
    request = urllib.request.Request(url, headers={"User-Agent": "lifeboat", "Accept": "application/json, */*"})
    where = expect.without_secrets(url)
    try:
        with opener.open(request, timeout=timeout) as answer:
            status, body = answer.status, answer.read(_LIMIT + 1)
    except urllib.error.HTTPError as error:
        status, body = error.code, error.read(_LIMIT + 1)
    except (socket.timeout, TimeoutError) as error:
        raise CheckError(f"no answer within {timeout:g} s", where) from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, (socket.timeout, TimeoutError)):
            raise CheckError(f"no answer within {timeout:g} s", where) from error
        raise CheckError(f"no answer ({getattr(error.reason, 'strerror', None) or error.reason})", where) from error
    except OSError as error:
        raise CheckError(f"no answer ({error.strerror or error})", where) from error
    if status != wanted:
        raise CheckError(f"answered {status}, expected {wanted} ({expect.shown(body[:200].decode('utf-8', 'replace'))})", where)
    if "json" not in entry:
        return status
    if len(body) > _LIMIT:
        raise CheckError(f"answer is larger than {_LIMIT >> 20} MiB", where)
    try:
        document = json.loads(body)
    except ValueError as error:
        raise CheckError("answer is not JSON", where) from error
    jmespath = need("jmespath")
    try:
        return jmespath.search(str(entry["json"]), document)
    except jmespath.exceptions.JMESPathError as error:
        raise ConfigError(f"not a JMESPath expression ({str(error).splitlines()[0]})", str(entry["json"]), "") from error
