"""Fetches MTA-STS policies from the web servers of strangers (RFC 8461 §3.3).

Whoever owns a domain chooses where this connects to, so the addresses are looked up and judged here, and no redirect is
followed. Fits ``deliver.tls_ports.FetchPolicy``.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Sequence

from mtaq.deliver.mta_sts import MAX_POLICY_BYTES
from mtaq.deliver.tls_ports import PolicyUnavailable
from mtaq.model.errors import ResolverError
from mtaq.net.http import Response, request

#: For one address; how long a message waits altogether is the caller's to say.
TIMEOUT_S = 20.0
#: Addresses tried.
MAX_ADDRESSES = 3


class PolicyFetcher:
    """Fetches policies.

    Args:
        addresses: Looks a host up.
        is_allowed: May a connection be made to this IP address?
        context: Verifies the server, by the authorities that the system trusts.
        port: 443, but in tests.
    """

    def __init__(
        self,
        *,
        addresses: Callable[[str], Awaitable[Sequence[str]]],
        is_allowed: Callable[[str], bool],
        context: ssl.SSLContext,
        port: int = 443,
    ) -> None:
        self._addresses = addresses
        self._is_allowed = is_allowed
        self._context = context
        self._port = port

    async def __call__(self, domain: str) -> bytes:
        """
        Return what the policy host of *domain* serves.

        Raises:
            PolicyUnavailable: Nothing, or nothing from the right host.
        """
        host = f"mta-sts.{domain}"
        failure = _unavailable(f"{host} has no address that may be connected to")
        for address in await self._allowed(host):
            try:
                response = await self._get(host, address)
            except ssl.SSLCertVerificationError as error:
                failure = PolicyUnavailable("sts-webpki-invalid", f"{host}: {error.verify_message or error}")
            except (OSError, ValueError) as error:
                failure = _unavailable(f"{host}: {error or type(error).__name__}")
            else:
                return _text(host, response)
        raise failure

    async def _allowed(self, host: str) -> list[str]:
        try:
            found = await self._addresses(host)
        except ResolverError as error:
            raise _unavailable(str(error)) from error
        return [address for address in found if self._is_allowed(address)][:MAX_ADDRESSES]

    async def _get(self, host: str, address: str) -> Response:
        at = "" if self._port == 443 else f":{self._port}"
        return await request(
            "GET",
            f"https://{host}{at}/.well-known/mta-sts.txt",
            timeout_s=TIMEOUT_S,
            max_response_bytes=MAX_POLICY_BYTES,
            verify=self._context,
            address=address,
        )


def _text(host: str, response: Response) -> bytes:
    if response.status != 200:
        raise _unavailable(f"{host} answers {response.status}")
    media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "text/plain":
        # RFC 8461 §3.3: a host that shows what its users write is not to speak for the domain.
        raise _unavailable(f"{host} does not say that the policy is text/plain")
    return response.body


def _unavailable(reason: str) -> PolicyUnavailable:
    return PolicyUnavailable("sts-policy-fetch-error", reason)
