"""Real spam filters, each private to a test: spamd with its own rules alone, and Rspamd with two rules of ours.

Both listen on a free port of loopback, ask nobody on the network, and keep their files in a folder that the test gives.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from tests.support.ports import free_port
from tests.support.processes import running, wait_for_tcp

SPAMD = "/usr/sbin/spamd"
RSPAMD = "/usr/bin/rspamd"

#: What every filter takes for spam (https://spamassassin.apache.org/gtube/).
GTUBE = b"XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"

_STARTING_S = 90.0


@contextlib.contextmanager
def running_spamd(folder: Path) -> Iterator[int]:
    """Run SpamAssassin's spamd with local rules only, and yield its port."""
    port = free_port()
    options = ["--local", "--nouser-config", "--max-children=2", f"--helper-home-dir={folder}", "--syslog=stderr"]
    if os.geteuid() == 0:
        options.append("--username=nobody")
    with _running([SPAMD, *options, "--listen=127.0.0.1", f"--port={port}"], port):
        yield port


_RSPAMD_CONF = """\
options {{
  pidfile = "{folder}/rspamd.pid";
  filters = "";
  dns {{ nameserver = ["127.0.0.1:9"]; timeout = 0.1s; retransmits = 1; }}
}}
logging {{ type = "console"; level = "error"; }}
metric {{ name = "default"; actions {{ reject = 15; add_header = 6; greylist = 4; }} }}
worker "normal" {{ bind_socket = "127.0.0.1:{port}"; count = 1; }}
lua = "{folder}/rules.lua";
"""

#: One rule tells what it was asked about, another finds a word.
_RSPAMD_RULES = """\
rspamd_config:register_symbol{
  name = 'ASKED', score = 0.5, callback = function(task)
    local recipients = {}
    for _, one in ipairs(task:get_recipients('smtp') or {}) do recipients[#recipients + 1] = one.addr end
    local from = (task:get_from('smtp') or {{}})[1]
    local asked = table.concat({
      table.concat(recipients, '+'), from.addr or '', tostring(task:get_from_ip()), task:get_helo() or '',
      task:get_user() or '', task:get_queue_id() or ''}, '|')
    task:insert_result('ASKED', 1.0)
    task:insert_result('ASKED_' .. string.gsub(asked, '[^%w.@|+-]', '?'), 1.0)
  end}
rspamd_config:register_symbol{
  name = 'WORD', score = 7.0, callback = function(task)
    return string.find(tostring(task:get_content()), 'bargain') ~= nil
  end}
"""


@contextlib.contextmanager
def running_rspamd(folder: Path) -> Iterator[int]:
    """Run Rspamd and yield the port of its normal worker."""
    port = free_port()
    (folder / "rspamd.conf").write_text(_RSPAMD_CONF.format(folder=folder, port=port))
    (folder / "rules.lua").write_text(_RSPAMD_RULES)
    with _running([RSPAMD, "-f", "-i", "-c", str(folder / "rspamd.conf")], port):
        yield port


@contextlib.contextmanager
def _running(command: list[str], port: int) -> Iterator[None]:
    with running(command) as process:
        wait_for_tcp(port, process, seconds=_STARTING_S)
        yield
