"""Postfix as who is sent to: strict about line ends, with TLS where it is wanted, and mailboxes to look into."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

from tests.benchmarks.postfix import Postfix
from tests.support.peers_mail import DOMAIN, LATER, MOST_BYTES, NOBODY, Peer, certificate
from tests.support.ports import free_port

#: Who is let in only the second time.
GREYLISTED = "greylisted"

_MAIN = """\
# Everything that Postfix has against smuggled messages.
smtpd_forbid_bare_newline = yes
smtpd_forbid_bare_newline_exclusions =
smtpd_forbid_unauth_pipelining = yes
smtpd_data_restrictions = reject_unauth_pipelining
strict_rfc821_envelopes = yes
smtpd_helo_required = yes
message_reject_characters = \\0
message_size_limit = {most_bytes}
mailbox_size_limit = 0
virtual_mailbox_limit = 0
smtpd_tls_chain_files = {key}, {chain}
smtpd_tls_security_level = may
smtpd_tls_received_header = yes
# As from a stranger: nothing in the header section is made better.
local_header_rewrite_clients =
smtpd_relay_restrictions = reject_unauth_destination
smtpd_recipient_restrictions =
    check_recipient_access inline:{{ {{ {later}@{domain} = 450 4.2.1 come back }} }}
    check_policy_service inet:127.0.0.1:{policy_port}
virtual_mailbox_domains = {domain}, example.org
virtual_mailbox_base = {folder}/mail
virtual_mailbox_maps = regexp:{folder}/conf/mailboxes
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{uid}
# Notices of success go to a mailbox as well.
default_transport = error:nowhere
"""

_MASTER = """\
127.0.0.1:{encrypted_port} inet n - n - - smtpd
    -o smtpd_tls_security_level=encrypt
tlsmgr unix - - n 1000? 1 tlsmgr
virtual unix - n n - - virtual
"""

_UID = 65534


class Greylist:
    """A policy service for Postfix: who is greylisted is told to come back once."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Listen no more."""
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        with peer, peer.makefile("rw", encoding="utf-8", newline="\n") as lines:
            asked: dict[str, str] = {}
            for line in lines:
                name, equals, value = line.rstrip("\n").partition("=")
                if equals:
                    asked[name] = value
                    continue
                lines.write(f"action={self._judge(asked)}\n\n")
                lines.flush()
                asked = {}

    def _judge(self, asked: dict[str, str]) -> str:
        recipient = asked.get("recipient", "")
        if not recipient.startswith(GREYLISTED) or recipient in self._seen:
            return "DUNNO"
        self._seen.add(recipient)
        return "DEFER_IF_PERMIT 4.2.0 Greylisted, see you in a minute"


class PostfixReceiver(Postfix, Peer):
    """Postfix with mailboxes for ``example.com``.

    Attributes:
        encrypted_port: Here nothing is said in plain text.
    """

    name = "postfix-receiver"
    line_end = b"\n"

    def __init__(self, folder: Path) -> None:
        self._greylist = Greylist()
        super().__init__(folder, sessions=10, settings="")
        self.encrypted_port = free_port()
        self.mail = self.folder / "mail"
        key, chain = certificate(self.folder, "mx.example.com")
        conf = self.folder / "conf"
        # Nobody is unknown, of a very long local-part too; all others share a mailbox.
        (conf / "mailboxes").write_text(f"!/^{NOBODY}@/ box/\n")
        settings = _MAIN.format(
            most_bytes=MOST_BYTES, key=key, chain=chain, later=LATER, domain=DOMAIN, folder=self.folder, uid=_UID,
            policy_port=self._greylist.port,
        )  # fmt: skip
        main = (conf / "main.cf").read_text().splitlines(keepends=True)
        named = {line.split(" ", 1)[0] for line in settings.splitlines()}
        (conf / "main.cf").write_text("".join(line for line in main if line.split(" ", 1)[0] not in named) + settings)
        with (conf / "master.cf").open("a") as master:
            master.write(_MASTER.format(encrypted_port=self.encrypted_port))
        self.mail.mkdir()
        self.mail.chmod(0o777)

    def stop(self) -> None:
        """Stop it and all its processes."""
        super().stop()
        self._greylist.close()

    def connections(self) -> int:
        """Return how often it was connected to, as its log says."""
        return self.log.read_bytes().count(b": connect from ")

    def kept(self) -> list[bytes]:
        """Return all messages in the mailbox."""
        folder = self.mail / "box" / "new"
        return [path.read_bytes() for path in folder.iterdir()] if folder.exists() else []
