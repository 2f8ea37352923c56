"""Haraka as who is sent to: Node.js's own streams of lines, and a plugin that keeps what comes out of them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.benchmarks.peers import end, wait_listening
from tests.support.instance import ROOT
from tests.support.peers_mail import LATER, MOST_BYTES, NOBODY, Peer, certificate
from tests.support.ports import free_port

#: Where ``scripts/test`` has npm put it.
PROGRAM = ROOT / ".venv" / "peers" / "node_modules" / "Haraka" / "bin" / "haraka"

#: What is not named here has no value at all. As built in, lines of more than 992 octets are broken in two;
#: RFC 5321 §4.5.3.1.6 has 1,000 with the line end, and the dot that is doubled does not count.
_CONNECTION = f"""\
[main]
smtputf8=true
[headers]
add_received=true
max_lines=1000
max_received=100
[max]
bytes={MOST_BYTES}
mime_parts=1000
line_length=512
data_line_length=1001
[message]
helo=hello
close=bye
[uuid]
banner_chars=0
deny_chars=0
"""

_KEEP = f"""\
const fs = require('node:fs')
const path = require('node:path')

exports.hook_rcpt = (next, connection, params) => {{
  const user = params[0].user
  if (user === '{NOBODY}') return next(DENY, 'no such user')
  if (user === '{LATER}') return next(DENYSOFT, 'come back')
  next(OK)
}}

exports.hook_queue = (next, connection) => {{
  const name = path.join(process.env.HARAKA, 'kept', connection.transaction.uuid)
  const file = fs.createWriteStream(name + '.new')
  file.once('close', () => {{
    fs.renameSync(name + '.new', name)
    next(OK)
  }})
  connection.transaction.message_stream.pipe(file)
}}
"""


def can_run_haraka() -> bool:
    """Is it there, and Node.js?"""
    return PROGRAM.exists() and shutil.which("node") is not None


class Haraka(Peer):
    """Haraka in a folder of its own."""

    name = "haraka"

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._folder = folder / self.name
        self._output = self._folder / "output"
        self._process: subprocess.Popen[bytes] | None = None
        for name in ("config", "plugins", "kept"):
            (self._folder / name).mkdir(parents=True)
        key, chain = certificate(self._folder, "mx.example.com")
        key.rename(self._folder / "config" / "tls_key.pem")
        chain.rename(self._folder / "config" / "tls_cert.pem")
        self._configure(
            me="haraka.test\n",
            plugins="tls\nkeep\n",
            **{
                "smtp.ini": f"listen=127.0.0.1:{self.port}\nnodes=0\n",
                "connection.ini": _CONNECTION,
                "dhparams.pem": _run(
                    "openssl", "genpkey", "-genparam", "-algorithm", "DH", "-pkeyopt", "group:ffdhe2048"
                ),
            },
        )
        (self._folder / "plugins" / "keep.js").write_text(_KEEP)

    def _configure(self, **files: str) -> None:
        for name, text in files.items():
            (self._folder / "config" / name).write_text(text)

    def start(self) -> None:
        """Start it and wait until it listens."""
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                ["node", str(PROGRAM), "-c", str(self._folder)],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        wait_listening(self.port, self._process, self._output.read_text)

    def stop(self) -> None:
        """Stop it."""
        if self._process is not None:
            end(self._process)

    def kept(self) -> list[bytes]:
        """Return what the plugin kept."""
        return [path.read_bytes() for path in (self._folder / "kept").iterdir() if path.suffix != ".new"]


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
