"""Policies of MTA-STS from a web server with TLS."""

from __future__ import annotations

import pytest
import trustme

from mtaq.deliver.tls_ports import PolicyUnavailable
from tests.support.policy_server import OK, PolicyServer, policy

POLICY = policy("enforce", "mx.a.test")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Who signs for the policy host."""
    return trustme.CA()


async def test_a_policy_is_fetched_from_its_own_host(authority):
    """By the name that RFC 8461 §3.3 gives it, in SNI, Host and certificate, wherever that is."""
    async with PolicyServer(authority, "mta-sts.a.test") as server:
        server.serve(POLICY)
        assert await server.fetcher()("a.test") == POLICY.encode()
        assert server.requests == [("GET /.well-known/mta-sts.txt HTTP/1.1", f"mta-sts.a.test:{server.port}")]
        assert server.names == ["mta-sts.a.test"]


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\n\r\n" + POLICY.encode(),
        b"HTTP/1.1 302 Found\r\nLocation: https://elsewhere.test/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + POLICY.encode(),
        b"HTTP/1.1 200 OK\r\n\r\n" + POLICY.encode(),
        OK + b"x" * 70_000,
        b"nonsense\r\n\r\n",
        None,
    ],
)
async def test_what_is_no_plain_text_is_no_policy(authority, response):
    """Redirects are not followed; other types, other statuses, too much and nothing at all are errors of fetching."""
    async with PolicyServer(authority, "mta-sts.a.test", response=response) as server:
        with pytest.raises(PolicyUnavailable) as failure:
            await server.fetcher()("a.test")
        assert failure.value.kind == "sts-policy-fetch-error"
        assert len(server.requests) == 1


async def test_another_host_is_not_believed(authority):
    """Its certificate must name the policy host, and be of an authority that is trusted."""
    async with PolicyServer(authority, "a.test") as other, PolicyServer(trustme.CA(), "mta-sts.a.test") as strange:
        trusting = other.fetcher()
        for fetcher in (trusting, PolicyServer(authority, "x").fetcher()):
            fetcher._port = other.port if fetcher is trusting else strange.port
            with pytest.raises(PolicyUnavailable) as failure:
                await fetcher("a.test")
            assert failure.value.kind == "sts-webpki-invalid"
        assert (other.requests, strange.requests) == ([], [])


async def test_no_connection_is_made_where_none_may_be(authority):
    """A domain's owner cannot have us knock at doors inside; a second address is tried when the first is dead."""
    async with PolicyServer(authority, "mta-sts.a.test") as server:
        server.serve(POLICY)
        with pytest.raises(PolicyUnavailable, match="no address that may be connected to"):
            await server.fetcher(allows=False)("a.test")
        assert server.names == []
        assert await server.fetcher(addresses=["127.0.0.99", "127.0.0.1"])("a.test") == POLICY.encode()
