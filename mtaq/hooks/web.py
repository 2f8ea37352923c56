"""``http://`` and ``https://``: a web service that gets the JSON by POST.

2xx takes what the JSON in its body says, or accepts when there is none; 403 rejects; any other status is no answer.
Redirects are not followed: the operator named where mail is shown. A certificate must be valid.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from mtaq.config.hooks import LONGEST_TIMEOUT_S, WebService
from mtaq.hooks.json_text import decoded, encoded, longest_answer
from mtaq.hooks.ports import HOOK_POINTS, HookFailure, HttpRequest, HttpResponse, Point, Said

HEADERS = {"Content-Type": "application/json", "Accept": "application/json"}


class WebHook:
    """One URL, asked with a request of its own for every question."""

    def __init__(self, target: WebService, *, pipeline: bool, request: HttpRequest, places: asyncio.Semaphore) -> None:
        self.label = target.label
        self.points: frozenset[Point] = frozenset(("pipeline",) if pipeline else HOOK_POINTS)
        self._url = target.url
        self._request = request
        self._places = places

    async def ask(self, point: Point, data: Mapping[str, Any]) -> Said:
        """Send the JSON and read the answer; whoever asks waits for ``smtp-hook-timeout`` and then cancels."""
        given = await encoded(point, data)
        async with self._places:
            try:
                response = await self._request(
                    "POST",
                    self._url,
                    headers=HEADERS,
                    body=given,
                    timeout_s=LONGEST_TIMEOUT_S,
                    max_response_bytes=longest_answer(point, given),
                )
            except (OSError, ValueError) as error:
                raise HookFailure(f"no answer: {error}".replace(self._url, self.label)) from error
        return await said_by(response)

    async def close(self) -> None:
        """There is no connection that lasts."""


async def said_by(response: HttpResponse) -> Said:
    """
    Return what *response* says.

    Raises:
        HookFailure: Its status is neither 2xx nor 403, or its body is not JSON.
    """
    if 200 <= response.status <= 299:
        return Said("accept", await decoded(response.body))
    if response.status == 403:
        # Many frameworks send a page of HTML with it, which means nothing here.
        media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        return Said("reject", await decoded(response.body) if media_type == "application/json" else None)
    raise HookFailure(f"HTTP status {response.status}")
