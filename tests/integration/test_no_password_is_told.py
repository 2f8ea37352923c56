"""No password, as it is or as it is sent, is found in what back ends of logins raise, tell, log or look like."""

from __future__ import annotations

import asyncio
import base64
import logging
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mtaq.config.logins import logins
from mtaq.net.http import request
from mtaq.net.streams import connected, exchange
from mtaq.smtpauth import Network, Verdict, authenticator_for
from tests.support.login_servers import free_port

PASSWORD = "hunter2-is-secret"
SECRETS = (PASSWORD, "shared-with-radius", base64.b64encode(f"ada:{PASSWORD}".encode()).decode())
NETWORK = Network(connected, exchange, request)


class EchoDatagrams(asyncio.DatagramProtocol):
    """Says what it hears."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.transport.sendto(data, addr)


@asynccontextmanager
async def echoing() -> AsyncIterator[int]:
    """Run servers on one port of TCP and UDP that answer with what they were asked, the password in it."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await reader.read(65_536)
        writer.write(b"HTTP/1.1 599 " + data.replace(b"\r\n", b" ") + b"\r\n\r\n" if data[:1] == b"G" else data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(EchoDatagrams, ("127.0.0.1", port))
    try:
        yield port
    finally:
        server.close()
        transport.close()


FORMS = [
    f"hardcoded://ada:{PASSWORD}",
    "ldap://127.0.0.1:{port}/dc=x",
    "ldaps://127.0.0.1:{port}/dc=x",
    "http://127.0.0.1:{port}/",
    "https://127.0.0.1:{port}/",
    "radius://mtaq:shared-with-radius@127.0.0.1:{port}",
    "file://{folder}/absent",
    "exec://{folder}/login",
    "users://ada",
]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.partition(":")[0])
@pytest.mark.parametrize("is_there", [True, False], ids=["echo", "down"])
async def test_no_password_is_told(form: str, is_there: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever a server answers, even the password itself, no word of it comes back, not at any level of any log."""
    caplog.set_level(logging.DEBUG)
    asyncio.get_running_loop().set_debug(True)
    (tmp_path / "login").write_text("#!/bin/sh\ncat; cat >&2; kill -9 $$\n")
    (tmp_path / "login").chmod(0o755)
    told: list[str] = []
    async with echoing() as port:
        text = form.format(port=port if is_there else free_port(), folder=tmp_path)
        parsed = logins(text)
        authenticator = authenticator_for(
            parsed,
            network=NETWORK,
            clock=lambda: 0.0,
            on_unavailable=lambda *what: told.extend(what),
            scram_secret=b"",
            timeout_s=0.5,
        )
        verdict = await authenticator.check("ada", PASSWORD, client_ip="192.0.2.1")
        backend = authenticator.forms[0].backend
        try:
            async with asyncio.timeout(0.5):
                await backend.check("ada", PASSWORD, "192.0.2.1")
        except OSError as error:
            told += traceback.format_exception(error)
        told += [repr(thing) for thing in (parsed, authenticator, authenticator.forms, backend, backend.name)]
        await authenticator.close()
    assert (verdict is Verdict.ACCEPTED) is form.startswith("hardcoded")
    for secret in SECRETS:
        assert secret not in "\n".join(told)
        assert secret not in caplog.text
