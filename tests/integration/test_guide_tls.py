"""The examples of docs/guide/tls.md about mail hosts, in a running relay; only addresses and ports are the test's."""

from __future__ import annotations

import asyncio
import errno
import json
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import trustme

from mtaq.client import connect
from tests.support.chains import Issued, issue
from tests.support.fake_mx import FakeMx, Script
from tests.support.instance import Relay
from tests.support.policy_server import PolicyServer, policy
from tests.support.ports import free_port
from tests.support.unbound import PROGRAM, Unbound

TEXT = (Path(__file__).parents[2] / "docs/guide/tls.md").read_text("utf-8").partition("\n## Mail hosts\n")[2]
MESSAGE = {"envelope": "ada@example.org", "mime": "Subject: hello\r\n\r\nhello\r\n"}
WEB_IP, HOST_IP, OTHER_IP = "127.0.85.1", "127.0.85.2", "127.0.85.3"
PORT = free_port()

pytestmark = [
    pytest.mark.peers,
    pytest.mark.slow,
    pytest.mark.timeout(120),
    pytest.mark.skipif(PROGRAM is None, reason="install unbound (Debian package) to run this"),
]


def written() -> dict[str, str]:
    """The configuration of the page."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)
    lines = [line.partition(": ") for name, block in found if not name for line in block.splitlines()]
    return {key: value for key, _, value in lines}


def server(certificate: Issued | trustme.LeafCert) -> Script:
    """A mail host with TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if isinstance(certificate, Issued):
        with trustme.Blob(certificate.pem).tempfile() as path:
            context.load_cert_chain(path)
    else:
        certificate.configure_cert(context)
    return Script(tls=context)


class Trial:
    """A relay with the page's configuration, and what it sends to."""

    def __init__(self, relay: Relay, address: str, hosts: dict[str, FakeMx], web: PolicyServer) -> None:
        self.relay = relay
        self.address = address
        self.hosts = hosts
        self.web = web

    async def outcome(self, queue: str, domain: str) -> dict[str, Any]:
        """Send a message to *domain*; return the last attempt in *queue*."""
        async with connect(self.address) as queues:
            await queues.publish("outbox", MESSAGE | {"recipient": f"bob@{domain}"})
            async for message in queues.consume(queue, prefetch=1):
                async with message:
                    result: dict[str, Any] = message["results"][-1]
                    return result
        raise AssertionError("the queue ended")


@pytest.fixture
async def trial(tmp_path: Path) -> AsyncIterator[Trial]:
    """Run everything for one test."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    proved, other = issue("mx.signed.test", dns=["mx.signed.test"]), issue("other.test", dns=["other.test"])
    signed = f"""\
@ IN MX 10 mx
mx IN A {HOST_IP}
_{PORT}._tcp.mx IN TLSA {proved.tlsa(3)}
wrong IN MX 10 wrong
wrong IN A {OTHER_IP}
_{PORT}._tcp.wrong IN TLSA {proved.tlsa(3)}
_smtp._tls IN TXT "v=TLSRPTv1; rua=mailto:tls@signed.test"
_smtp._tls.wrong IN TXT "v=TLSRPTv1; rua=mailto:tls@signed.test"
"""
    insecure = f"""\
@ IN MX 10 wrong.signed.test.
mta-sts IN A {WEB_IP}
_mta-sts IN TXT "v=STSv1; id=1"
"""
    address = f"embedded://{tmp_path / 'queue'}"
    async with AsyncExitStack() as stack:
        web = PolicyServer(authority, "mta-sts.insecure.test", ip=WEB_IP, port=443)
        web.serve(policy("enforce", "mx.signed.test"))
        try:
            await stack.enter_async_context(web)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EADDRINUSE):
                raise
            pytest.skip("port 443 cannot be had")
        hosts = {
            "proved": FakeMx(server(proved), ip=HOST_IP, port=PORT),
            "other": FakeMx(server(other), ip=OTHER_IP, port=PORT),
        }
        for host in hosts.values():
            await stack.enter_async_context(host)
        (tmp_path / "unbound").mkdir()
        names = stack.enter_context(Unbound(tmp_path / "unbound", signed=signed, insecure=insecure))
        options = written() | {"dns-nameserver": f"127.0.0.1:{names.address[1]}"}
        relay = Relay(
            tmp_path, address, verb="deliver", delivery_port=PORT, delivery_allow_private="true", smtp_threads=1,
            rabbitmq_success="success", rabbitmq_retry="retry", **options,
        )  # fmt: skip
        relay.environment["SSL_CERT_FILE"] = str(tmp_path / "authority.pem")
        stack.callback(relay.cleanup)
        await asyncio.to_thread(relay.start)
        await asyncio.to_thread(relay.wait_ready)
        yield Trial(relay, address, hosts, web)


async def test_mail_hosts_prove_themselves_to_a_running_relay(trial: Trial) -> None:
    """By DANE and by MTA-STS; what came of it is counted for the owners who want to know."""
    assert trial.relay.options["delivery-tls-policies"] == "dane,mta-sts"
    result = await trial.outcome("success", "signed.test")
    assert (result["tls-policy"], result["certificate"]["verified"]) == ("dane", True)
    result = await trial.outcome("retry", "wrong.signed.test")
    assert (result["state"], result["tls-policy"]) == ("starttls", "dane")
    result = await trial.outcome("retry", "insecure.test")
    assert (result["state"], result["tls-policy"], len(trial.web.requests)) == ("starttls", "mta-sts", 1)
    assert (len(trial.hosts["proved"].mail), trial.hosts["other"].mail) == (1, [])
    assert await asyncio.to_thread(trial.relay.stop) == 0
    data = trial.relay.folder / "data"
    assert len(list((data / "mta-sts").glob("*.json"))) == 1
    [counts] = (data / "tls-reports").glob("*.json")
    rows = [json.loads(line) for line in counts.read_text().splitlines()[1:]]
    assert {(row[0], row[1], row[4], len(row[5])) for row in rows} == {
        ("signed.test", "tlsa", 1, 0),
        ("wrong.signed.test", "tlsa", 0, 1),
    }
