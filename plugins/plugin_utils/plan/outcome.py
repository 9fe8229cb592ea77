# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""From the verdicts of the services to the outcome of the run. The list of verdicts is closed; unknown is failed."""

from __future__ import annotations

from typing import Any, Iterable, Mapping

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConfigError

from ..catalog.problems import nearest, shown
from ..run.words import EXIT_DEGRADED, EXIT_FAILED, EXIT_SUCCESS, SUCCESS, VERDICTS


def verdict_of(value: object) -> str:
    """The verdict in a state or a bare word; whatever is not on the closed list is ``failed``."""
    word = value.get("verdict") if isinstance(value, Mapping) else value
    return word if isinstance(word, str) and word in VERDICTS else "failed"


def outcome(verdicts: Mapping[str, object], verb: str, picked: Iterable[str] | None = None) -> dict[str, Any]:
    """What the run comes to.

    verdicts: service -> word, or a mapping with "verdict". picked: the services the run answers for; the given ones when left out.
    Gives {"verb", "ok", "exit" (0 all succeeded, 2 all succeeded but some are degraded, 3 otherwise), "picked", "succeeded", "counts":
    {verdict: n}, "by_verdict": {verdict: [service]}, "missing" (picked without a verdict), "strangers" (verdicts nobody asked for),
    "verdicts": {service: word}, "message"}. A picked service without a verdict counts as failed; no service at all is a failure.
    """
    if verb not in SUCCESS:
        raise ConfigError(f'unknown verb "{shown(verb)}"', "verdicts", nearest(verb, SUCCESS))
    wanted = list(dict.fromkeys(verdicts if picked is None else picked))
    words = {service: verdict_of(verdicts.get(service)) for service in wanted}
    missing = [service for service in wanted if not _given(verdicts.get(service))]
    strangers = sorted(set(verdicts) - set(wanted))
    by_verdict = {word: [service for service in wanted if words[service] == word] for word in VERDICTS}
    by_verdict = {word: services for word, services in by_verdict.items() if services}
    succeeded = [service for service in wanted if words[service] in SUCCESS[verb]]
    degraded = [service for service in wanted if words[service] == "degraded"]
    if not wanted or strangers or len(succeeded) + len(degraded) < len(wanted):
        code = EXIT_FAILED
    else:
        code = EXIT_DEGRADED if degraded else EXIT_SUCCESS
    return {
        "verb": verb, "ok": code == EXIT_SUCCESS, "exit": code, "picked": len(wanted), "succeeded": len(succeeded),
        "counts": {word: len(services) for word, services in by_verdict.items()}, "by_verdict": by_verdict,
        "missing": missing, "strangers": strangers, "verdicts": words,
        "message": _message(verb, wanted, succeeded, by_verdict, missing, strangers),
    }


def _given(value: object) -> bool:
    return bool(value.get("verdict") if isinstance(value, Mapping) else value)


def _message(verb: str, wanted: list[str], succeeded: list[str], by_verdict: Mapping[str, list[str]], missing: list[str], strangers: list[str]) -> str:
    if not wanted:
        return f"{verb}: no service was picked, so nothing was done: that is a failure"
    parts = [f"{verb}: {len(succeeded)} of {len(wanted)} succeeded"]
    for word, services in by_verdict.items():
        if word not in SUCCESS[verb]:
            parts.append(f"{word}: {', '.join(services)}")
    if missing:
        parts.append(f"without a verdict: {', '.join(missing)}")
    if strangers:
        parts.append(f"not picked, but with a verdict: {', '.join(strangers)}")
    return "; ".join(parts)
