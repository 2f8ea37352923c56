"""OpenDKIM as a verifier: Debian's, with a private configuration, asking a name server of the test's own."""

from __future__ import annotations

import asyncio
import re
import subprocess
from pathlib import Path

OPENDKIM = Path("/usr/sbin/opendkim")

_RESOLVER = """\
server:
  do-not-query-localhost: no
  module-config: "iterator"
forward-zone:
  name: "."
  forward-addr: {host}@{port}
"""
_RESULT = re.compile(r"\bdkim=(\w+)(?:(?!\bdkim=).)*?header\.s=([\w-]+)", re.DOTALL)


async def verdicts(content: bytes, server: tuple[str, int], folder: Path) -> dict[str, str]:
    """Return what OpenDKIM says of each signature of *content*, by selector; *server* answers for DNS."""
    resolver, configuration, message = folder / "unbound.conf", folder / "opendkim.conf", folder / "message.eml"
    resolver.write_text(_RESOLVER.format(host=server[0], port=server[1]))
    configuration.write_text(
        f"Mode v\nSyslog no\nUserID root\nPidFile {folder}/pid\nResolverConfiguration {resolver}\n"
    )
    message.write_bytes(content)
    program = await asyncio.create_subprocess_exec(
        OPENDKIM, "-x", configuration, "-vvv", "-t", message, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    async with asyncio.timeout(60):
        output, _ = await program.communicate()
    assert program.returncode == 0, output.decode()
    return {selector: word for word, selector in _RESULT.findall(output.decode())}
