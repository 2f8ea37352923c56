"""``http(s)://``: a web server that takes Basic credentials decides (RFC 7617).

Any 2xx accepts, 401 and 403 refuse. Everything else is nobody's no, redirects included: following one would hand the
password to somebody whom the operator did not name.
"""

from __future__ import annotations

import base64

from mtaq.model.login import Verdict
from mtaq.smtpauth.ports import TIMEOUT_S, Request

_MAX_RESPONSE_BYTES = 1024 * 1024


class HttpBasic:
    """One URL."""

    at_once = 32

    def __init__(self, url: str, request: Request) -> None:
        self._url = url
        self._request = request

    @property
    def name(self) -> str:
        """The form without its query, which may hold a key."""
        return self._url.partition("?")[0]

    async def check(self, user: str, password: str, client_ip: str) -> Verdict:
        """Ask with GET."""
        if ":" in user:  # RFC 7617 §2: it would be read as a shorter name and a longer password
            return Verdict.REFUSED
        credentials = base64.b64encode(f"{user}:{password}".encode()).decode()
        response = await self._request(
            "GET",
            self._url,
            headers={"Authorization": f"Basic {credentials}"},
            timeout_s=TIMEOUT_S,
            max_response_bytes=_MAX_RESPONSE_BYTES,
        )
        if 200 <= response.status <= 299:
            return Verdict.ACCEPTED
        if response.status in (401, 403):
            return Verdict.REFUSED
        raise OSError(f"the server answered {response.status}")

    async def close(self) -> None:
        """Nothing is held."""
