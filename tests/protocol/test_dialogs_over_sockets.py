"""The SMTP dialogs of ``dialogs/`` again, over real connections: in clear, after STARTTLS, inside TLS, and proxied."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from mtaq.model.decision import Decision, accept
from mtaq.model.login import Verdict
from mtaq.model.parcel import BrokerState, Parcel
from mtaq.net.certificates import ServerTls, TlsOptions
from mtaq.net.listeners import listen
from mtaq.net.slots import Slots
from mtaq.receive.clients import Misdeeds
from mtaq.receive.intake import IntakeOptions
from mtaq.receive.logins import LoginDesk
from mtaq.receive.policy import PortPolicy
from mtaq.receive.service import Port, ReceptionService
from mtaq.smtp import codes
from mtaq.smtp.scram import ScramKeys
from mtaq.smtp.server_session import SessionOptions
from tests.support.dialog import SCRAM_KEYS, USERS, Dialog, read_dialog, run_dialog
from tests.unit.receive.fakes import Counts, Names, State, event_log, facilities, settings

FILES = sorted((Path(__file__).parent / "dialogs").glob("*.txt"))
#: Those that say of themselves that a refused sender cannot be arranged over a socket are left to the session's tests.
DIALOGS = [path for path in FILES if not read_dialog(path).only]
PLAIN_DIALOGS = [path for path in DIALOGS if read_dialog(path).tls != "always"]
DIRECT_DIALOGS = [path for path in FILES if read_dialog(path).only == "direct"]
TLS_DIALOGS = [path for path in DIALOGS if read_dialog(path).tls != "never"]
#: What a proxy says of a client at 127.0.0.9, in both versions.
HEADERS = {
    "v1": b"PROXY TCP4 127.0.0.9 127.0.0.8 40112 25\r\n",
    "v2": bytes.fromhex("0d0a0d0a000d0a515549540a2111000c 7f000009 7f000008 9cb0 0019"),
}


class Taker:
    """A broker that confirms at once and counts."""

    state = BrokerState.UP

    def __init__(self) -> None:
        self.taken: set[str] = set()

    async def publish(self, queue: str, parcel: Parcel, *, timeout_s: float) -> None:
        """Confirm."""
        self.taken.add(parcel.correlation_id.rpartition(".")[0])


class DialogHook:
    """Refuses recipients by their local-part."""

    async def sender(self, session: dict[str, Any]) -> Decision:
        """Accept."""
        return accept()

    async def recipient(self, session: dict[str, Any]) -> Decision:
        """``refused`` never, ``later`` not now."""
        local_part = session["recipient"].partition("@")[0]
        refused, later = codes.RELAY_DENIED, codes.TRY_LATER
        return {
            "refused": Decision("reject", refused.code, refused.status or "", refused.text),
            "later": Decision("defer", later.code, later.status or "", later.text),
        }.get(local_part, accept())

    async def message(self, message: dict[str, Any]) -> Decision:
        """Accept."""
        return accept()


class DialogLogins:
    """The users of dialogs; ``away`` is a back end that is down."""

    knows_passwords = True

    async def check(self, user: str, password: str, *, client_ip: str) -> Verdict:
        """Compare."""
        if user == "away":
            return Verdict.UNAVAILABLE
        return Verdict.ACCEPTED if USERS.get(user) == password else Verdict.REFUSED

    async def scram_keys(self, user: str) -> ScramKeys | None:
        """Look up."""
        return SCRAM_KEYS.get(user)


class DialogPolicy(PortPolicy):
    """What a dialog may rely on: everybody may connect, its options hold, ``refused`` and ``later`` are refused."""

    def __init__(self, dialog: Dialog, proxy: str) -> None:
        given = settings(
            smtp_range="127.0.0.0/8", smtp_proxy=proxy, smtp_auth_failures="1000",
            smtp_greeting_delay="20" if dialog.only == "direct" else "0",
        )  # fmt: skip
        super().__init__(
            given.receive(25), port=25, hostnames=Names(), broker_max_bytes=None, starttls=dialog.options.starttls,
            hook=DialogHook(), logins=DialogLogins(),
        )  # fmt: skip
        self._dialog = dialog.options

    def session_options(self, local_ip: str, remote_ip: str, *, logged_in: bool) -> SessionOptions:
        """The dialog's."""
        return self._dialog


class SocketTransport:
    """One connection to the service."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, trust: ssl.SSLContext, taker: Taker
    ) -> None:
        self._reader, self._writer, self._trust, self._taker = reader, writer, trust, taker
        self._greeting: list[str] | None = None

    async def send(self, data: bytes) -> None:
        """Send these octets in one write."""
        self._writer.write(data)

    async def read_reply(self) -> list[str] | None:
        """Return the lines of the next reply."""
        if self._greeting is not None:
            lines, self._greeting = self._greeting, None
            return lines
        lines = []
        while True:
            try:
                line = await asyncio.wait_for(self._reader.readline(), 20)
            except ConnectionError:
                return None
            if not line:
                return None
            lines.append(line.decode().rstrip("\r\n"))
            if line[3:4] != b"-":
                return lines

    async def start_tls(self) -> None:
        """Shake hands."""
        await self._writer.start_tls(self._trust, server_hostname="mx.test")

    async def begin_inside_tls(self) -> None:
        """Go through STARTTLS before the dialog, which is then told the greeting."""
        greeting = await self.read_reply()
        for command in (b"EHLO client.test\r\n", b"STARTTLS\r\n"):
            await self.send(command)
            await self.read_reply()
        await self.start_tls()
        self._greeting = greeting

    async def accepted(self) -> int:
        """Messages taken."""
        return len(self._taker.taken)

    async def asked(self) -> None:
        """Not seen from here."""
        return


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    """A certificate for mx.test in a PEM file with its key, and a client's context that trusts it."""
    authority = trustme.CA()
    path = tmp_path_factory.mktemp("tls") / "mx.test.pem"
    authority.issue_cert("mx.test").private_key_and_cert_chain_pem.write_to_path(str(path))
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    return path, trust


@asynccontextmanager
async def connected(
    dialog: Dialog, authority: tuple[Path, ssl.SSLContext], folder: Path, *, implicit_tls: bool, header: bytes = b""
) -> AsyncIterator[SocketTransport]:
    """Run a service for one dialog, and connect to it, beginning with a PROXY header if there is one."""
    pem, trust = authority
    taker, [listener] = Taker(), listen(["127.0.0.1"], [0], implicit_tls=implicit_tls)
    service = ReceptionService(
        IntakeOptions(inbox="inbox", server_id="test", broker_max_bytes=None),
        facilities(taker, Slots(folder / "slots", 10), event_log()[0]), slot_wait_s=1,
    )  # fmt: skip
    misdeeds = Misdeeds(counts=Counts(), state=State(), now=lambda: 0.0)
    service.logins = LoginDesk(misdeeds=misdeeds, events=event_log()[0], failure_delay_s=0)
    policy = DialogPolicy(dialog, "127.0.0.1" if header else "")
    tls = ServerTls(TlsOptions(certificate=pem, key=pem), events=event_log()[0])
    service.start([Port(sock=listener.sock, number=25, policy=policy, tls=tls, implicit_tls=implicit_tls)])
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    writer.write(header)
    if implicit_tls:
        await writer.start_tls(trust, server_hostname="mx.test")
    try:
        yield SocketTransport(reader, writer, trust, taker)
    finally:
        writer.transport.abort()
        await service.stop(1)
        listener.sock.close()


@pytest.mark.parametrize("path", PLAIN_DIALOGS + DIRECT_DIALOGS, ids=lambda path: path.stem)
async def test_dialog_over_a_plain_connection(
    path: Path, authority: tuple[Path, ssl.SSLContext], tmp_path: Path
) -> None:
    """A dialog goes the same over a socket, STARTTLS included."""
    dialog = read_dialog(path)
    async with connected(dialog, authority, tmp_path, implicit_tls=False) as transport:
        await run_dialog(path, transport)


@pytest.mark.parametrize("path", TLS_DIALOGS, ids=lambda path: path.stem)
async def test_dialog_after_starttls(path: Path, authority: tuple[Path, ssl.SSLContext], tmp_path: Path) -> None:
    """A dialog goes the same once STARTTLS has been gone through."""
    dialog = read_dialog(path)
    async with connected(dialog, authority, tmp_path, implicit_tls=False) as transport:
        await transport.begin_inside_tls()
        await run_dialog(path, transport)


@pytest.mark.parametrize("path", TLS_DIALOGS, ids=lambda path: path.stem)
async def test_dialog_inside_tls(path: Path, authority: tuple[Path, ssl.SSLContext], tmp_path: Path) -> None:
    """A dialog goes the same where TLS is spoken from the first byte."""
    dialog = read_dialog(path)
    async with connected(dialog, authority, tmp_path, implicit_tls=True) as transport:
        await run_dialog(path, transport)


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
@pytest.mark.parametrize("path", PLAIN_DIALOGS, ids=lambda path: path.stem)
async def test_dialog_behind_a_proxy(
    path: Path, header: bytes, authority: tuple[Path, ssl.SSLContext], tmp_path: Path
) -> None:
    """A dialog goes the same behind a proxy's header, STARTTLS included."""
    dialog = read_dialog(path)
    async with connected(dialog, authority, tmp_path, implicit_tls=False, header=header) as transport:
        await run_dialog(path, transport)


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
@pytest.mark.parametrize("path", TLS_DIALOGS, ids=lambda path: path.stem)
async def test_dialog_behind_a_proxy_inside_tls(
    path: Path, header: bytes, authority: tuple[Path, ssl.SSLContext], tmp_path: Path
) -> None:
    """Content and pipelining go the same where TLS begins right behind the header."""
    dialog = read_dialog(path)
    async with connected(dialog, authority, tmp_path, implicit_tls=True, header=header) as transport:
        await run_dialog(path, transport)
