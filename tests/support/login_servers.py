"""Real servers that know who may log in, each private to a test: slapd, freeradius, a system account, a web server.

All of them listen on free ports of loopback and keep their files in a folder that the test gives.
"""

from __future__ import annotations

import base64
import contextlib
import secrets
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.support.ports import free_port
from tests.support.processes import go_on, running, wait_for_tcp

SLAPD = "/usr/sbin/slapd"
FREERADIUS = "/usr/sbin/freeradius"
BASE_DN = "ou=people,dc=example,dc=com"
PASSWORD = "corréct horse"
"""The password of everybody here."""

_STARTING_S = 30.0


@dataclass(frozen=True)
class Directory:
    """A running slapd.

    Attributes:
        port: In clear.
        tls_port: TLS from the first byte.
    """

    port: int
    tls_port: int


@contextlib.contextmanager
def running_slapd(folder: Path, users: dict[str, str], *, certificate: Path, key: Path) -> Iterator[Directory]:
    """Run slapd with *users*: the DN of each, below ``dc=example,dc=com``, and its ``uid``."""
    (folder / "db").mkdir()
    (folder / "data.ldif").write_text("\n".join(_ldif(users)), "utf-8")
    (folder / "slapd.conf").write_text(_SLAPD_CONF.format(folder=folder, certificate=certificate, key=key))
    subprocess.run(
        ["/usr/sbin/slapadd", "-q", "-f", folder / "slapd.conf", "-l", folder / "data.ldif"],
        check=True, capture_output=True,
    )  # fmt: skip
    directory = Directory(free_port(), free_port())
    urls = f"ldap://127.0.0.1:{directory.port} ldaps://127.0.0.1:{directory.tls_port}"
    with running([SLAPD, "-d", "0", "-f", str(folder / "slapd.conf"), "-h", urls]) as process:
        for port in (directory.port, directory.tls_port):
            wait_for_tcp(port, process, seconds=_STARTING_S)
        yield directory


_SLAPD_CONF = """\
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
TLSCertificateFile {certificate}
TLSCertificateKeyFile {key}
pidfile {folder}/slapd.pid
database mdb
suffix "dc=example,dc=com"
directory {folder}/db
"""


def _ldif(users: dict[str, str]) -> Iterator[str]:
    yield "dn: dc=example,dc=com\nobjectClass: dcObject\nobjectClass: organization\ndc: example\no: example\n"
    yield f"dn: {BASE_DN}\nobjectClass: organizationalUnit\nou: people\n"
    yield f"dn: ou=guests,{BASE_DN}\nobjectClass: organizationalUnit\nou: guests\n"
    for dn, uid in users.items():
        yield f"dn:: {_base64(dn)}\nobjectClass: inetOrgPerson\nuid:: {_base64(uid)}"
        yield f"cn:: {_base64(uid)}\nsn: x\nuserPassword:: {_base64(PASSWORD)}\n"


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@contextlib.contextmanager
def running_freeradius(folder: Path, *, secret: str, users: tuple[str, ...], signing: bool = True) -> Iterator[int]:
    """Run freeradius with *users* and yield its port. It wants requests signed; its own replies are when *signing*."""
    port = free_port(kind=socket.SOCK_DGRAM)
    (folder / "dictionary").write_text("$INCLUDE /usr/share/freeradius/dictionary\n")
    (folder / "users").write_text("".join(f'{user} Cleartext-Password := "{PASSWORD}"\n' for user in users))
    (folder / "radiusd.conf").write_text(_RADIUSD_CONF.format(folder=folder, port=port, secret=secret))
    if signing:
        (folder / "signing").write_text(SIGNING)
    with running([FREERADIUS, "-f", "-l", "stdout", "-d", str(folder), "-n", "radiusd"]) as process:
        _wait_for_udp(port, process)
        yield port


_RADIUSD_CONF = """\
raddbdir = {folder}
run_dir = {folder}
logdir = {folder}
libdir = /usr/lib/freeradius
pidfile = {folder}/radiusd.pid
security {{
    reject_delay = 0
}}
modules {{
    pap {{
    }}
    files {{
        filename = {folder}/users
    }}
}}
client loopback {{
    ipaddr = 127.0.0.1
    secret = {secret}
    require_message_authenticator = yes
}}
server default {{
    listen {{
        type = auth
        ipaddr = 127.0.0.1
        port = {port}
    }}
    authorize {{
        files
        pap
    }}
    authenticate {{
        Auth-Type PAP {{
            pap
        }}
    }}
    $-INCLUDE {folder}/signing
}}
"""

#: Versions before 3.2.5 sign replies only when told so; on a refusal another section is run.
SIGNING = """\
post-auth {
    update reply {
        Message-Authenticator := 0x00
    }
    Post-Auth-Type REJECT {
        update reply {
            Message-Authenticator := 0x00
        }
    }
}
"""


@contextlib.contextmanager
def system_account() -> Iterator[str]:
    """Create an account of this system with the usual password; yield its name. Needs root."""
    user = f"mtaq{secrets.token_hex(4)}"
    subprocess.run(["/usr/sbin/useradd", "--no-create-home", user], check=True, capture_output=True)
    try:
        subprocess.run(["/usr/sbin/chpasswd"], input=f"{user}:{PASSWORD}\n".encode(), check=True, capture_output=True)
        yield user
    finally:
        subprocess.run(["/usr/sbin/userdel", user], check=True, capture_output=True)


@dataclass
class WebServer:
    """A web server that takes Basic credentials.

    Attributes:
        port: Where it listens.
        users: Who gets 200; everybody else 401.
        status: What everybody gets instead, if not ``None``.
        asked: The Authorization of each request.
    """

    port: int
    users: tuple[str, ...]
    status: int | None = None
    asked: list[str] = field(default_factory=list)

    def answer_to(self, authorization: str) -> int:
        """Return the status for a request."""
        self.asked.append(authorization)
        if self.status is not None:
            return self.status
        known = (f"Basic {_base64(f'{user}:{PASSWORD}')}" for user in self.users)
        return 200 if authorization in known else 401


@contextlib.contextmanager
def running_web_server(users: tuple[str, ...], *, tls: ssl.SSLContext | None = None) -> Iterator[WebServer]:
    """Run a web server in a thread."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(web.answer_to(self.headers.get("Authorization", "")))
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    web = WebServer(server.server_port, users)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _wait_for_udp(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until somebody has the port: nobody can bind it then."""
    deadline_s = time.monotonic() + _STARTING_S
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                return
        go_on(process, deadline_s)
