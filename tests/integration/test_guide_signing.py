"""docs/guide/signing.md, done as it stands there: a key, its record, signed mail, and what its receiver says."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mtaq.mailauth.dkim import check_dkim, find_signatures
from mtaq.mailauth.dkim_message import SignedMessage
from mtaq.mailauth.dkim_tags import parse_tags
from mtaq.state.dkim_keys import generate, record_of
from tests.support.dns_server import DnsServer
from tests.support.instance import ROOT, Relay, Sink, wait_until
from tests.support.zones import Zones, driven, split_zones

TEXT = (ROOT / "docs/guide/signing.md").read_text("utf-8")
EXAMPLES = re.findall(r"^```sh\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?", TEXT, re.MULTILINE | re.DOTALL)
[PROGRAM] = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)

pytestmark = [pytest.mark.slow, pytest.mark.peers]


class Shell:
    """Runs what the page says, against one relay."""

    def __init__(self, folder: Path, relay: Relay) -> None:
        self.folder = folder
        clean = {name: value for name, value in os.environ.items() if not name.startswith("MTAQ_")}
        settings = {key: value for key, value in relay.options.items() if key not in ("smtp-ip", "metrics-port")}
        self.environment = clean | {f"MTAQ_{k.upper().replace('-', '_')}": str(v) for k, v in settings.items()}

    async def run(self, command: str) -> str:
        """Run one example; return what it prints."""
        script = f'set -eo pipefail; mtaq() {{ "{sys.executable}" -m mtaq "$@"; }}; {command}'
        return await self._output("bash", "-c", script)

    async def python(self, program: str) -> None:
        """Run a program of the page."""
        await self._output(sys.executable, "-c", program)

    async def _output(self, *command: str) -> str:
        def run() -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                command, env=self.environment, cwd=self.folder, capture_output=True, text=True, timeout=60
            )

        done = await asyncio.to_thread(run)
        assert done.returncode == 0, done.stderr
        return done.stdout


@asynccontextmanager
async def running(*programs: Sink | Relay) -> AsyncIterator[None]:
    """Programs that have begun their work."""
    try:
        for program in programs:
            await asyncio.to_thread(program.start)
            if isinstance(program, Relay):
                await asyncio.to_thread(program.wait_ready)
        yield
    finally:
        for program in programs:
            await asyncio.to_thread(program.cleanup)


async def arrived(sink: Sink, count: int) -> list[bytes]:
    """Wait for so many messages at the sink."""
    await asyncio.to_thread(wait_until, lambda: len(sink.contents()) >= count, f"{count} messages at the sink")
    return sink.contents()


async def test_the_page(tmp_path: Path) -> None:
    """A key is made, its record published, mail goes out signed, and a receiver finds that right."""
    if shutil.which("jq") is None:
        pytest.skip("install jq (Debian package) to run this")
    (make, _), (record, shown), (send, _), (check, found) = EXAMPLES
    zones: Zones = {"example.net": {"MX": [[10, "mx.example.net"]]}, "mx.example.net": {"A": ["127.0.0.1"]}}
    async with DnsServer(zones) as server:
        sink = Sink(tmp_path)
        relay = Relay(
            tmp_path,
            f"embedded://{tmp_path}/queue",
            smtp_threads=1,
            rabbitmq_inbox="outbox",
            smtp_sink_address="127.0.0.1",
            smtp_sink_port=sink.port,
            dns_nameserver=f"127.0.0.1:{server.port}",
        )
        shell = Shell(tmp_path, relay)
        assert "v=DKIM1; k=rsa;" in await shell.run(make)
        assert await shell.run(record) == shown
        published = json.loads(await shell.run(record.partition(" | jq")[0]))
        zones |= split_zones({published["name"]: {"TXT": [published["content"]]}})
        pem = generate("ed25519-sha256")
        zones |= split_zones({"news._domainkey.example.com": {"TXT": [record_of(pem)]}})
        (tmp_path / "news.pem").write_text(pem)

        async with running(sink, relay):
            await shell.run(send)
            [content] = await arrived(sink, 1)
            (tmp_path / "received.eml").write_bytes(content)
            assert await shell.run(check) == found
            await shell.python(PROGRAM)
            [news] = [each for each in await arrived(sink, 2) if b"spring" in each]
        message = SignedMessage(news)
        result = driven(check_dkim(find_signatures(message), now=datetime.now(UTC)), zones)
        assert [(each.word, each.named.selector) for each in result.signatures] == [("pass", "news"), ("pass", "s2036")]
        assert "feedback-id" in parse_tags(message.named(b"dkim-signature")[0].value)["h"]
        assert pem.splitlines()[1] not in relay.log.read_text()
