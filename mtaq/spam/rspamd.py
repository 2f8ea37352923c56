"""Rspamd: one message by HTTP to ``/checkv2``, and its score, symbols and action back.

Rspamd decides what is to be done; the score alone does not. ``spam`` is what it would refuse; mail that it would only
mark, or have come later, is ``ham`` with that ``action`` in the JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from mtaq.mailauth.origin import Origin
from mtaq.mailauth.spam import SpamResult
from mtaq.model.address import address_text
from mtaq.spam.ports import Request

MAX_BYTES = 16 * 1024 * 1024
#: Symbols, their options, and whatever else modules add.
_MAX_ANSWER_BYTES = 1024 * 1024
#: Recipients are named to Rspamd as far as they fit.
_MAX_RECIPIENTS_BYTES = 16 * 1024

#: Its own actions, such as ``add header``, and those that the operator invented.
_ACTION = re.compile(r"[A-Za-z0-9_-]+(?: [A-Za-z0-9_-]+){0,4}")


class Rspamd:
    """One Rspamd."""

    name = "rspamd"
    max_bytes = MAX_BYTES

    def __init__(self, url: str, *, request: Request) -> None:
        """Ask the Rspamd at *url*, ``http(s)://host:port`` without path."""
        self._url = url.rstrip("/") + "/checkv2"
        self._request = request

    async def judge(self, content: bytes, origin: Origin, *, timeout_s: float) -> SpamResult:
        """
        Ask what its rules say.

        Raises:
            OSError: No answer, or not one of Rspamd.
        """
        response = await self._request(
            "POST",
            self._url,
            headers=headers_of(origin),
            body=content,
            timeout_s=timeout_s,
            max_response_bytes=_MAX_ANSWER_BYTES,
        )
        if response.status != 200:
            raise OSError(f"Rspamd answered {response.status}")
        return read_answer(response.body)


def headers_of(origin: Origin) -> dict[str, str]:
    """Return what Rspamd is told of the envelope; what cannot stand in a header field of HTTP is left out."""
    said = {
        "IP": origin.client_ip,
        "Helo": origin.helo if origin.client_ip else None,
        "From": f"<{address_text(origin.envelope)}>",
        "Rcpt": _listed(origin.recipients),
        "User": origin.user,
        "Queue-Id": origin.queue_id,
        "MTA-Name": origin.receiver,
    }
    octets = {name: text.encode("utf-8", "replace").decode("latin-1") for name, text in said.items() if text}
    return {name: text for name, text in octets.items() if _is_plain(text)}


def _listed(recipients: tuple[str, ...]) -> str:
    listed, size = [], 0
    for recipient in recipients:
        size += len(recipient.encode("utf-8", "replace")) + 4
        if size > _MAX_RECIPIENTS_BYTES:
            break
        listed.append(f"<{recipient}>")
    return ", ".join(listed)


def _is_plain(text: str) -> bool:
    return all(" " <= character != "\x7f" for character in text)


def read_answer(body: bytes) -> SpamResult:
    """
    Return what Rspamd said; *body* is its JSON.

    Raises:
        OSError: It is not an answer of Rspamd.
    """
    try:
        return _judgement(json.loads(body))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
        raise OSError("an answer that is none of Rspamd") from error


def _judgement(said: Mapping[str, Any]) -> SpamResult:
    action, symbols = said["action"], said.get("symbols") or {}
    if len(action) > 40 or not _ACTION.fullmatch(action) or not isinstance(symbols, Mapping):
        raise ValueError("a value of the wrong form")
    if said.get("is_skipped") is True and action != "reject":
        return SpamResult("none", "rspamd", action=action, reason="Rspamd was told to skip it")
    return SpamResult.scored(
        "spam" if action == "reject" else "ham",
        "rspamd",
        score=float(said["score"]),
        threshold=float(said["required_score"]),
        rules=symbols,
        action=action,
    )
