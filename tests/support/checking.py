"""A reception that checks what it takes, behind a proxy that may name any client, with a name server of the test's."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import subprocess
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

from tests.support.dns_server import DnsServer
from tests.support.dns_thread import running_dns
from tests.support.front_door import messages
from tests.support.instance import ROOT, Relay
from tests.support.wire import Wire


class Checking(Relay):
    """``mtaq receive`` with all checks that need nobody but DNS.

    Attributes:
        dns: Its name server; nothing of what it says is kept, except failures, for five seconds.
        address: Of the queues.
    """

    def __init__(self, folder: Path, dns: DnsServer, *, address: str = "", **options: Any) -> None:
        self.dns = dns
        self.address = address or f"embedded://{folder / 'queue'}"
        wanted: dict[str, Any] = {
            "smtp_threads": 1,
            "smtp_range": "0.0.0.0/0;::/0",
            "smtp_proxy": "127.0.0.1",
            "smtp_extract": "false",
            "smtp_parse": "none",
            "smtp_check": "spf,dkim,dmarc,arc,iprev",
            "smtp_validate_address": "loose",
            "smtp_sender_domain": "any",
            "dns_nameserver": f"127.0.0.1:{dns.port}",
            "dns_min_ttl": 0,
            "dns_interval": 1,
            "dns_attempts": 2,
        }
        super().__init__(folder, self.address, verb="receive", **(wanted | options))

    def verb(self, *arguments: str) -> None:
        """Run a verb for this instance."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MTAQ_")}
        subprocess.run(
            [sys.executable, "-m", "mtaq", *arguments, "--config", str(self.configuration)],
            check=True, capture_output=True, cwd=ROOT, env=environment, timeout=60,
        )  # fmt: skip


@contextlib.contextmanager
def running_checks(
    folder: Path, *, address: str = "", local: str | None = None, **options: object
) -> Iterator[Checking]:
    """Run one, with its name server, for which *local* is an address of its own."""
    with running_dns({}, ttl_s=0, negative_ttl_s=0) as dns:
        relay = Checking(folder, dns, address=address, **options)
        try:
            relay.write_configuration()
            if local is not None:
                relay.verb("local", "add", local)
            relay.start()
            relay.wait_ready()
            yield relay
        finally:
            relay.cleanup()


def inbox(relay: Checking, queue: str = "inbox") -> Generator[dict[str, Any], None, None]:
    """Yield what *relay* publishes, waiting for the next."""
    return messages(relay.address, queue)


def proxied(client_ip: str) -> bytes:
    """Return the PROXY header of a client."""
    ip = ipaddress.ip_address(client_ip)
    ours = "192.0.2.25" if ip.version == 4 else "2001:db8::25"
    return f"PROXY TCP{ip.version} {ip} {ours} 40112 25\r\n".encode()


class Client(Wire):
    """A client with any address, that says EHLO and hands over one message."""

    def __init__(self, port: int, client_ip: str = "192.0.2.1", helo: str = "client.test") -> None:
        super().__init__(port, begin=proxied(client_ip))
        answer = self.say(f"EHLO {helo}")
        if not answer.startswith("250"):
            raise NotSpoken(answer)

    def hand_over(self, content: bytes, mail_from: str = "", recipient: str = "grace@example.com") -> str:
        """Send *content*, whatever its octets are, and return the final reply."""
        for command in (f"MAIL FROM:<{mail_from}> BODY=BINARYMIME SMTPUTF8", f"RCPT TO:<{recipient}>"):
            answer = self.say(command)
            if not answer.startswith("250"):
                raise NotSpoken(answer)
        return self.bdat(content)


class NotSpoken(Exception):
    """What cannot be said in SMTP, and the reply to it."""
