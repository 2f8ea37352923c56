"""The forms of ``smtp-auth`` against the real servers: slapd, freeradius, PAM, a web server; and none, and bad ones."""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trustme

from mtaq.config.logins import logins
from mtaq.net.http import request
from mtaq.net.streams import connected, exchange
from mtaq.smtpauth import Authenticator, Network, Verdict, authenticator_for
from tests.support.login_servers import (
    BASE_DN,
    FREERADIUS,
    PASSWORD,
    SLAPD,
    Directory,
    WebServer,
    free_port,
    running_freeradius,
    running_slapd,
    running_web_server,
    system_account,
)

ODD_NAME = '# "lead", <x>;=+\\é '
SECRET = "shared-secret"
ACCEPTED, REFUSED, UNAVAILABLE = Verdict.ACCEPTED, Verdict.REFUSED, Verdict.UNAVAILABLE


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Who signs the servers' certificates."""
    return trustme.CA()


@pytest.fixture(scope="module")
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    """A client's context that knows that authority."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture
def reasons() -> list[str]:
    """Why somebody could not be asked."""
    return []


@pytest.fixture
async def ask(reasons: list[str], trusting: ssl.SSLContext) -> AsyncIterator[Ask]:
    """Ask a ``smtp-auth`` for a login."""
    made: list[Authenticator] = []

    def connect(host: str, port: int, *, tls: bool, timeout_s: float) -> object:
        return connected(host, port, tls=trusting if tls else False, timeout_s=timeout_s)

    async def check(forms: str, user: str, password: str = PASSWORD, *, timeout_s: float = 10.0) -> Verdict:
        network = Network(connect, exchange, partial(request, verify=trusting))  # type: ignore[arg-type]  # narrower
        authenticator = authenticator_for(
            logins(forms), network=network, clock=lambda: 0.0,
            on_unavailable=lambda form, reason: reasons.append(f"{form}: {reason}"), scram_secret=b"",
            timeout_s=timeout_s,
        )  # fmt: skip
        made.append(authenticator)
        return await authenticator.check(user, password, client_ip="192.0.2.1")

    yield check
    for authenticator in made:
        await authenticator.close()


Ask = Callable[..., "asyncio.Future[Verdict]"]


@pytest.fixture(scope="module")
def slapd(tmp_path_factory: pytest.TempPathFactory, authority: trustme.CA) -> Iterator[Directory]:
    """A directory with Ada, somebody with an odd name, and a guest one level below."""
    folder = tmp_path_factory.mktemp("slapd")
    certificate = authority.issue_cert("127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(folder / "tls.pem")
    certificate.private_key_pem.write_to_path(folder / "tls.key")
    users = {
        f"uid=ada,{BASE_DN}": "ada",
        f"uid=\\23 \\22lead\\22\\2c \\3cx\\3e\\3b\\3d\\2b\\5cé\\20,{BASE_DN}": ODD_NAME,
        f"uid=guest,ou=guests,{BASE_DN}": "guest",
    }
    with running_slapd(folder, users, certificate=folder / "tls.pem", key=folder / "tls.key") as directory:
        yield directory


@pytest.mark.peers
@pytest.mark.skipif(not os.path.exists(SLAPD), reason="install slapd (Debian package) to run this")
class TestLdap:
    """``ldap://`` and ``ldaps://``, against slapd."""

    @pytest.mark.parametrize("user", ["ada", ODD_NAME])
    async def test_the_right_password(self, slapd: Directory, ask: Ask, user: str) -> None:
        """A user of the directory is accepted, in clear and under TLS, whatever its name is made of."""
        assert await ask(f"ldap://127.0.0.1:{slapd.port}/{BASE_DN}", user) is ACCEPTED
        assert await ask(f"ldaps://127.0.0.1:{slapd.tls_port}/{BASE_DN}", user) is ACCEPTED

    @pytest.mark.parametrize(
        ("user", "password"),
        [
            ("ada", "wrong"),
            ("nobody", PASSWORD),
            ("ada", ""),
            ("", PASSWORD),
            ("*", PASSWORD),
            ("*)(uid=*", PASSWORD),
            ("ada,dc=evil", PASSWORD),
            ("guest,ou=guests", PASSWORD),
            ("ada+cn=ada", PASSWORD),
            ("#6164", PASSWORD),
            ("ada\0", PASSWORD),
            ("\\61da\\", PASSWORD),
        ],
    )
    async def test_no_password_and_tricks_with_names(
        self, slapd: Directory, ask: Ask, user: str, password: str, reasons: list[str]
    ) -> None:
        """A wrong password, none, and names that mean something in a DN or filter are refused by a plain no."""
        assert await ask(f"ldap://127.0.0.1:{slapd.port}/{BASE_DN}", user, password) is REFUSED
        assert reasons == []

    async def test_the_guest_exists(self, slapd: Directory, ask: Ask) -> None:
        """Whom the injected name was to reach could log in where the operator allows it."""
        assert await ask(f"ldap://127.0.0.1:{slapd.port}/ou=guests,{BASE_DN}", "guest") is ACCEPTED

    async def test_the_certificate_is_verified(self, slapd: Directory, ask: Ask, reasons: list[str]) -> None:
        """A directory whose certificate does not name it is not asked."""
        assert await ask(f"ldaps://localhost:{slapd.tls_port}/{BASE_DN}", "ada") is UNAVAILABLE
        assert "certificate" in reasons[0].lower()


@pytest.fixture(scope="module")
def freeradius(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a server that knows Ada."""
    with running_freeradius(tmp_path_factory.mktemp("radius"), secret=SECRET, users=("ada",)) as port:
        yield port


@pytest.mark.peers
@pytest.mark.skipif(not os.path.exists(FREERADIUS), reason="install freeradius (Debian package) to run this")
class TestRadius:
    """``radius://``, against freeradius."""

    @pytest.mark.parametrize(
        ("user", "password", "verdict"),
        [
            ("ada", PASSWORD, ACCEPTED),
            ("ada", "wrong", REFUSED),
            ("ada", "a long password that takes more than one block of sixteen octets", REFUSED),
            ("nobody", PASSWORD, REFUSED),
            ("ada", "x" * 129, REFUSED),
        ],
    )
    async def test_the_server_decides(
        self, freeradius: int, ask: Ask, user: str, password: str, verdict: Verdict
    ) -> None:
        """It accepts who has the right password and nobody else."""
        assert await ask(f"radius://mtaq:{SECRET}@127.0.0.1:{freeradius}", user, password) is verdict

    async def test_another_secret(self, freeradius: int, ask: Ask) -> None:
        """A server with another secret does not answer, and nobody logs in."""
        assert await ask(f"radius://mtaq:other@127.0.0.1:{freeradius}", "ada", timeout_s=1.0) is UNAVAILABLE

    async def test_a_server_that_does_not_sign(self, tmp_path: Path, ask: Ask) -> None:
        """Whose replies have no Message-Authenticator is not believed: anybody on the way could have said yes."""
        with running_freeradius(tmp_path, secret=SECRET, users=("ada",), signing=False) as port:
            assert await ask(f"radius://mtaq:{SECRET}@127.0.0.1:{port}", "ada", timeout_s=1.0) is UNAVAILABLE


@pytest.fixture(scope="module")
def account() -> Iterator[str]:
    """An account of this system."""
    with system_account() as user:
        yield user


@pytest.mark.peers
@pytest.mark.skipif(os.geteuid() != 0, reason="creating an account needs root")
class TestSystemUsers:
    """``users://``, against PAM and an account made for it."""

    async def test_the_right_password(self, account: str, ask: Ask) -> None:
        """An account that is listed or matches may log in with its password."""
        assert await ask(f"users://root,{account}", account) is ACCEPTED
        assert await ask("users://mtaq*", account) is ACCEPTED

    async def test_no(self, account: str, ask: Ask, reasons: list[str]) -> None:
        """A wrong password, an account that is not listed, and none at all are refused."""
        assert await ask("users://mtaq*", account, "wrong") is REFUSED
        assert await ask("users://root,MTAQ*,client*", account) is REFUSED
        assert await ask("users://*", "no-such-account") is REFUSED
        assert reasons == []

    async def test_an_expired_account(self, ask: Ask) -> None:
        """An account that has expired may not log in with its right password."""
        with system_account() as user:
            subprocess.run(["/usr/sbin/usermod", "--expiredate", "1", user], check=True)
            assert await ask("users://mtaq*", user) is REFUSED


class TestHttp:
    """``http(s)://``, against a web server."""

    @pytest.fixture
    def web(self) -> Iterator[WebServer]:
        """A web server that knows Ada."""
        with running_web_server(("ada",)) as server:
            yield server

    async def test_the_server_decides(self, web: WebServer, ask: Ask) -> None:
        """200 accepts and 401 refuses; name and password are sent as Basic credentials."""
        url = f"http://127.0.0.1:{web.port}/login"
        assert await ask(url, "ada") is ACCEPTED
        assert await ask(url, "ada", "wrong") is REFUSED
        assert await ask(url, "bob") is REFUSED

    async def test_a_colon_in_the_name(self, web: WebServer, ask: Ask) -> None:
        """A name with a colon is not sent: it would arrive as another one."""
        assert await ask(f"http://127.0.0.1:{web.port}/", "ada:x") is REFUSED
        assert web.asked == []

    @pytest.mark.parametrize(
        ("status", "verdict"),
        [
            (204, ACCEPTED),
            (403, REFUSED),
            (302, UNAVAILABLE),
            (404, UNAVAILABLE),
            (429, UNAVAILABLE),
            (500, UNAVAILABLE),
        ],
    )
    async def test_other_answers(self, web: WebServer, ask: Ask, status: int, verdict: Verdict) -> None:
        """Only 2xx, 401 and 403 are answers; redirects are not followed."""
        web.status = status
        assert await ask(f"http://127.0.0.1:{web.port}/", "ada") is verdict
        assert len(web.asked) == 1

    async def test_the_certificate_is_verified(self, authority: trustme.CA, ask: Ask, reasons: list[str]) -> None:
        """Under TLS the certificate must name the host."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(context)
        with running_web_server(("ada",), tls=context) as web:
            assert await ask(f"https://localhost:{web.port}/", "ada") is ACCEPTED
            assert await ask(f"https://127.0.0.1:{web.port}/", "ada") is UNAVAILABLE
            assert "certificate" in reasons[0].lower()
            assert len(web.asked) == 1


FORMS = ["ldap://127.0.0.1:{port}/dc=x", "ldaps://127.0.0.1:{port}/dc=x", "http://127.0.0.1:{port}/"]
UDP = "radius://mtaq:secret@127.0.0.1:{port}"


@pytest.mark.parametrize("form", [*FORMS, UDP])
async def test_nobody_there(form: str, ask: Ask, reasons: list[str]) -> None:
    """A server that is down is no yes and no no."""
    assert await ask(form.format(port=free_port()), "ada") is UNAVAILABLE
    assert len(reasons) == 1
    assert PASSWORD not in reasons[0]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("reply", [None, b"", b"0", b"0\x84\xff\xff\xff\xff", b"HTTP/1.1 200", b"\0" * 100])
async def test_a_server_that_is_silent_or_stops(form: str, reply: bytes | None, ask: Ask) -> None:
    """A server that says nothing, half of an answer or nonsense leaves it open, in bounded time."""
    async with answering(reply) as port:
        assert await ask(form.format(port=port), "ada", timeout_s=0.5) is UNAVAILABLE


@pytest.mark.parametrize("reply", [None, b"", b"\x02", b"\x02" * 20, b"\0" * 4000])
async def test_a_radius_server_that_is_silent_or_talks_nonsense(reply: bytes | None, ask: Ask) -> None:
    """Datagrams that are no reply leave it open, in bounded time."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: Echo(reply), ("127.0.0.1", 0))
    port = transport.get_extra_info("sockname")[1]
    assert await ask(UDP.format(port=port), "ada", timeout_s=0.5) is UNAVAILABLE
    transport.close()


async def test_the_next_form_is_asked(tmp_path: Path, ask: Ask, reasons: list[str]) -> None:
    """A form that is down leaves the login to the next; when that one refuses, nobody knows."""
    forms = f"http://127.0.0.1:{free_port()}/ hardcoded://ada:secret"
    assert await ask(forms, "ada", "secret") is ACCEPTED
    assert await ask(forms, "ada", "wrong") is UNAVAILABLE
    assert len(reasons) == 2


class Echo(asyncio.DatagramProtocol):
    """Answers every datagram with the same one, or not."""

    def __init__(self, reply: bytes | None) -> None:
        self.reply = reply

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: object) -> None:
        if self.reply is not None:
            self.transport.sendto(self.reply, addr)  # type: ignore[attr-defined]  # a datagram transport


@asynccontextmanager
async def answering(reply: bytes | None) -> AsyncIterator[int]:
    """Run a server that sends *reply* and closes, or with ``None`` stays silent; yield its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if reply is None:
                await asyncio.sleep(60)
            writer.write(reply or b"")
            await writer.drain()
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
