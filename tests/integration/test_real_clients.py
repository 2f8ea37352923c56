"""Programs that people send mail with deliver over every port, directly and through a real haproxy.

Each test is one client on one route; what it sent is looked for in the inbox, where the JSON says how it came.
"""

from __future__ import annotations

import json
import os
import shutil
import smtplib
import subprocess
import uuid
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.benchmarks.postfix import Postfix, can_run_postfix
from tests.support.front_door import EXCHANGER, PASSWORD, SUBMISSION, USER, FrontDoor, messages
from tests.support.haproxy import DEFAULTS, PROGRAM, Haproxy
from tests.support.instance import free_port, wait_until

pytestmark = pytest.mark.peers

#: Debian's Node.js looks for Debian's packages here, that of others does not.
NODE_PATH = "/usr/share/nodejs"

#: Where haproxy is reached, and whence it connects.
FRONT, PROXY = "127.0.0.4", "127.0.0.7"

#: A login that does without a file of hashes, so that SCRAM is offered as well.
LOGINS = f"hardcoded://{USER}:{PASSWORD.replace(' ', '%20').replace(',', '%2C')}"

Tls = Literal["none", "starttls", "implicit"]


@dataclass(frozen=True)
class Route:
    """A way to the relay.

    Attributes:
        name: Its own, and the first label of its recipients' domain.
        ip: Where a client connects to.
        port: The same.
        tls: How TLS begins.
        mechanism: How the client logs in; empty where it does not.
        host: The name that the certificate is for.
    """

    name: str
    ip: str
    port: int
    tls: Tls
    mechanism: str
    host: str

    @property
    def recipient(self) -> str:
        """Somebody behind this route; on the exchanger's routes all of the domain is local."""
        return f"grace@{self.name}.example.com"


#: Port, TLS, mechanism of every route; ``proxied-`` stands for the way through haproxy.
ROUTES: dict[str, tuple[str, Tls, str]] = {
    "mx": ("mx", "none", ""),
    "submission-plain": ("submission", "starttls", "PLAIN"),
    "submission-login": ("submission", "starttls", "LOGIN"),
    "secure": ("secure", "implicit", "PLAIN"),
    "proxied-mx": ("mx", "none", ""),
    "proxied-submission": ("submission", "starttls", "PLAIN"),
    "proxied-secure": ("secure", "implicit", "LOGIN"),
}


class Scene:
    """The relay, haproxy in front of it, and its inbox."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.relay = FrontDoor(folder, smtp_proxy=PROXY)
        for port in (self.relay.submission, self.relay.secure):
            self.relay.options[f"smtp-auth@{port}"] = LOGINS
        self.relay.start()
        stack.callback(self.relay.cleanup)
        self.relay.wait_ready()
        self.relay.local("add", "*@mx.example.com", "*@proxied-mx.example.com")
        self.fronts = {name: free_port(FRONT) for name in ("mx", "submission", "secure")}
        sections = (
            f"listen {name}\n    bind {FRONT}:{front}\n"
            f"    server relay 127.0.0.1:{getattr(self.relay, name)} send-proxy-v2 source {PROXY}\n"
            for name, front in self.fronts.items()
        )
        listens = tuple((FRONT, front) for front in self.fronts.values())
        stack.enter_context(Haproxy(folder, DEFAULTS + "".join(sections), listens=listens))
        self._inbox = messages(self.relay.address, "inbox")
        stack.callback(self._inbox.close)
        wait_until(self._knows_local_addresses, "the local addresses to be known")

    def route(self, name: str) -> Route:
        """Return a route by its name."""
        port, tls, mechanism = ROUTES[name]
        host = EXCHANGER if port == "mx" else SUBMISSION
        if name.startswith("proxied-"):
            return Route(name, FRONT, self.fronts[port], tls, mechanism, host)
        return Route(name, "127.0.0.1", getattr(self.relay, port), tls, mechanism, host)

    def arrived(self, route: Route, subject: str) -> dict[str, Any]:
        """Wait for a message and return its connection, after a look at everything that a route says about it."""
        message = next(message for message in self._inbox if f"Subject: {subject}\r\n" in message["mime"])
        assert message["recipient"] == route.recipient
        connection: dict[str, Any] = message["connection"]
        assert (connection["local-ip"], connection["local-port"]) == (route.ip, route.port)
        assert connection["remote-ip"] == "127.0.0.1"
        assert connection.get("proxy", {}).get("ip") == (PROXY if route.ip == FRONT else None)
        assert connection.get("user") == (USER if route.mechanism else None)
        assert connection["secure"] is ("tls" in connection)
        if route.tls != "none":
            assert connection["tls"]["version"] in ("TLSv1.2", "TLSv1.3")
        assert message["tags"] == ["mx" if route.name.endswith("mx") else "submission"]
        return connection

    def mechanisms(self) -> list[str]:
        """Return how clients have logged in so far."""
        return [event["mechanism"] for event in self.relay.events("login.accepted")]

    def _knows_local_addresses(self) -> bool:
        with smtplib.SMTP("127.0.0.1", self.relay.mx, timeout=20) as client:
            client.ehlo()
            client.mail("ada@example.org")
            return client.rcpt("grace@proxied-mx.example.com")[0] == 250


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """What all clients share."""
    if PROGRAM is None:
        pytest.skip("install haproxy (Debian package) to run this")
    with ExitStack() as stack:
        yield Scene(tmp_path_factory.mktemp("scene"), stack)


def run(command: list[str], text: str = "", **environment: str) -> str:
    """Run a client with *text* as its input; return what it printed, once it ended well."""
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, timeout=60, check=False, env=os.environ | environment
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def content(route: Route, subject: str) -> str:
    """Return a message as it is piped into a client."""
    return f"From: <{USER}>\nTo: <{route.recipient}>\nSubject: {subject}\n\n.it works\n"


# The clients. Each sends one message over a route, and trusts nobody but the relay's authority.


def by_swaks(scene: Scene, route: Route, subject: str) -> None:
    """swaks."""
    command = ["swaks", "--server", route.ip, "--port", str(route.port), "--from", USER, "--to", route.recipient]
    command += ["--header", f"Subject: {subject}", "--suppress-data"]
    if route.tls != "none":
        command.append("-tls" if route.tls == "starttls" else "-tlsc")
        command += ["--tls-verify", "--tls-ca-path", str(scene.relay.authority)]
    if route.mechanism:
        command += ["--auth", route.mechanism, "--auth-user", USER, "--auth-password", PASSWORD]
    run(command)


def by_curl(scene: Scene, route: Route, subject: str) -> None:
    """curl."""
    name = route.host if route.tls != "none" else route.ip
    scheme = "smtps" if route.tls == "implicit" else "smtp"
    command = ["curl", "--silent", "--show-error", "--url", f"{scheme}://{name}:{route.port}/client.test"]
    command += ["--connect-to", f"{name}:{route.port}:{route.ip}:{route.port}", "--upload-file", "-", "--crlf"]
    command += ["--mail-from", USER, "--mail-rcpt", route.recipient]
    if route.tls != "none":
        command += ["--ssl-reqd", "--cacert", str(scene.relay.authority)]
    if route.mechanism:
        command += ["--login-options", f"AUTH={route.mechanism}", "--user", f"{USER}:{PASSWORD}"]
    run(command, content(route, subject))


def by_msmtp(scene: Scene, route: Route, subject: str) -> None:
    """msmtp."""
    lines = [
        "account default", f"host {route.ip}", f"port {route.port}", f"from {USER}",
        f"tls {'off' if route.tls == 'none' else 'on'}", f"tls_starttls {'on' if route.tls == 'starttls' else 'off'}",
        f"tls_trust_file {scene.relay.authority}", f"tls_host_override {route.host}",
    ]  # fmt: skip
    if route.mechanism:
        lines += [f"auth {route.mechanism.lower()}", f"user {USER}", f'password "{PASSWORD}"']
    configuration = scene.folder / "msmtprc"
    configuration.write_text("\n".join(lines) + "\n")
    configuration.chmod(0o600)
    run(["msmtp", "--file", str(configuration), route.recipient], content(route, subject))


def by_smtplib(scene: Scene, route: Route, subject: str) -> None:
    """Python's smtplib."""
    session: smtplib.SMTP
    if route.tls == "implicit":
        session = smtplib.SMTP_SSL(route.ip, route.port, timeout=60, context=scene.relay.trust)
    else:
        session = smtplib.SMTP(route.ip, route.port, timeout=60)
    with session:
        if route.tls == "starttls":
            session.starttls(context=scene.relay.trust)
        session.ehlo()
        if route.mechanism:
            session.user, session.password = USER, PASSWORD
            session.auth(route.mechanism, getattr(session, f"auth_{route.mechanism.lower()}"))
        assert session.sendmail(USER, [route.recipient], content(route, subject)) == {}


NODEMAILER = """
const {options, message} = JSON.parse(require("fs").readFileSync(0));
require("nodemailer").createTransport(options).sendMail(message, (error) => {
  if (error) { console.error(error); process.exit(1); }
});
"""


def by_nodemailer(scene: Scene, route: Route, subject: str) -> None:
    """nodemailer."""
    options: dict[str, Any] = {
        "host": route.ip, "port": route.port, "secure": route.tls == "implicit",
        "ignoreTLS": route.tls == "none", "requireTLS": route.tls == "starttls",
        "tls": {"ca": scene.relay.authority.read_text(), "servername": route.host},
    }  # fmt: skip
    if route.mechanism:
        options |= {"auth": {"user": USER, "pass": PASSWORD}, "authMethod": route.mechanism}
    message = {"from": USER, "to": route.recipient, "subject": subject, "text": ".it works"}
    run(["node", "-e", NODEMAILER], json.dumps({"options": options, "message": message}), NODE_PATH=NODE_PATH)


def by_openssl(scene: Scene, route: Route, subject: str) -> None:
    """A person with openssl s_client; it speaks TLS on every port."""
    command = ["openssl", "s_client", "-quiet", "-connect", f"{route.ip}:{route.port}", "-verify_return_error"]
    command += ["-CAfile", str(scene.relay.authority), "-verify_hostname", route.host]
    command += [] if route.tls == "implicit" else ["-starttls", "smtp"]
    lines = ["EHLO client.test", f"MAIL FROM:<{USER}>", f"RCPT TO:<{route.recipient}>", "DATA"]
    if route.mechanism == "PLAIN":
        lines.insert(1, "AUTH PLAIN " + encoded(f"\0{USER}\0{PASSWORD}"))
    elif route.mechanism == "LOGIN":
        lines[1:1] = ["AUTH LOGIN", encoded(USER), encoded(PASSWORD)]
    lines += [content(route, subject).replace("\n.", "\n..").replace("\n", "\r\n") + ".", "QUIT"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        try:
            # With STARTTLS it keeps to itself what it was told before the handshake.
            replies = [first_digit(client.stdout)] if route.tls == "implicit" else []
            for line in lines:
                client.stdin.write(line.encode() + b"\r\n")
                replies.append(first_digit(client.stdout))
            assert set(replies) <= {"2", "3"}, replies
        finally:
            client.kill()


def encoded(text: str) -> str:
    """Return *text* in base64."""
    return b64encode(text.encode()).decode()


def first_digit(stream: Any) -> str:
    """Read a reply and return the first digit of its code."""
    while (line := stream.readline())[3:4] == b"-":
        pass
    return line[:1].decode()


CLIENTS: dict[str, tuple[str, Callable[[Scene, Route, str], None]]] = {
    "swaks": ("/usr/bin/swaks", by_swaks),
    "curl": ("/usr/bin/curl", by_curl),
    "msmtp": ("/usr/bin/msmtp", by_msmtp),
    "smtplib": ("", by_smtplib),
    "node-nodemailer": (f"{NODE_PATH}/nodemailer/package.json", by_nodemailer),
    "openssl": ("/usr/bin/openssl", by_openssl),
}
"""Debian package, what it brings, and how it sends."""


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("name", ROUTES)
def test_a_client_delivers(scene: Scene, client: str, name: str) -> None:
    """The message is in the inbox, with the port, the TLS and the user by which it came."""
    program, send = CLIENTS[client]
    if program and not Path(program).exists():
        pytest.skip(f"install {client} (Debian package) to run this")
    route, subject, before = scene.route(name), f"{client} {uuid.uuid4().hex}", len(scene.mechanisms())
    send(scene, route, subject)
    connection = scene.arrived(route, subject)
    assert connection["secure"] is (route.tls != "none" or client == "openssl")
    assert scene.mechanisms()[before:] == ([route.mechanism] if route.mechanism else [])


@pytest.mark.skipif(shutil.which("msmtp") is None, reason="install msmtp (Debian package) to run this")
@pytest.mark.parametrize("name", ["submission-plain", "secure", "proxied-secure"])
def test_a_client_logs_in_with_scram(scene: Scene, name: str) -> None:
    """msmtp proves that it knows the password without sending it, and that the relay does."""
    known = scene.route(name)
    route = Route(known.name, known.ip, known.port, known.tls, "SCRAM-SHA-256", known.host)
    subject = f"scram {uuid.uuid4().hex}"
    by_msmtp(scene, route, subject)
    scene.arrived(route, subject)
    assert scene.mechanisms()[-1] == "SCRAM-SHA-256"


# Postfix


class Smarthost(Postfix):
    """A Postfix that sends everything on to the relay, each domain over the route that has its name."""

    name = "smarthost"

    def __init__(self, scene: Scene) -> None:
        routes = [scene.route(name) for name in ROUTES]
        settings = (
            f"smtp_tls_CAfile = {scene.relay.authority}\nsmtp_sasl_tls_security_options = noanonymous\n"
            "smtp_sasl_security_options = noanonymous\n"
            # What a busy machine kept it from sending at once is tried again at once.
            "minimal_backoff_time = 1s\nmaximal_backoff_time = 2s\nqueue_run_delay = 1s\n"
        )
        super().__init__(scene.folder, sessions=10, settings=settings)
        configuration = self.folder / "conf"
        transports = [f"{route.name}.example.com {route.name}:[{route.ip}]:{route.port}\n" for route in routes]
        passwords = {f"[{route.ip}]:{route.port} {USER}:{PASSWORD}\n" for route in routes if route.mechanism}
        for name, lines in (("transport", transports), ("passwords", passwords)):
            (configuration / name).write_text("".join(lines))
        with (configuration / "main.cf").open("a") as main:
            main.write(f"transport_maps = texthash:{configuration}/transport\n")
            main.write(f"smtp_sasl_password_maps = texthash:{configuration}/passwords\n")
        with (configuration / "master.cf").open("a") as master:
            master.write("tlsmgr unix - - n 1000? 1 tlsmgr\n")
            master.writelines(service(route) for route in routes)


def service(route: Route) -> str:
    """Return the lines of master.cf that make Postfix's client keep to a route."""
    options = [f"smtp_tls_security_level={'none' if route.tls == 'none' else 'secure'}"]
    options += [f"smtp_tls_wrappermode={'yes' if route.tls == 'implicit' else 'no'}"]
    options += [f"smtp_tls_secure_cert_match={route.host}"]
    if route.mechanism:
        options += ["smtp_sasl_auth_enable=yes", f"smtp_sasl_mechanism_filter={route.mechanism.lower()}"]
    return f"{route.name} unix - - n - - smtp\n" + "".join(f"    -o {option}\n" for option in options)


@pytest.fixture(scope="module")
def smarthost(scene: Scene) -> Iterator[Smarthost]:
    """Postfix, which every test of it shares."""
    if not can_run_postfix():
        pytest.skip("install postfix (Debian package) and be root to run this")
    for parent in list(scene.folder.parents)[:3]:
        parent.chmod(parent.stat().st_mode | 0o055)
    scene.folder.chmod(0o755)
    postfix = Smarthost(scene)
    postfix.start()
    try:
        yield postfix
    finally:
        postfix.stop()


@pytest.mark.parametrize("name", ROUTES)
def test_postfix_uses_the_relay_as_its_smarthost(scene: Scene, smarthost: Smarthost, name: str) -> None:
    """What Postfix was given to send is in the inbox, and Postfix says that it was sent."""
    route, subject = scene.route(name), f"postfix {uuid.uuid4().hex}"
    with smtplib.SMTP("127.0.0.1", smarthost.port, timeout=60) as session:
        session.sendmail(USER, [route.recipient], content(route, subject))
    connection = scene.arrived(route, subject)
    assert connection["secure"] is (route.tls != "none")
    assert connection["helo"] == "postfix.test"
    begin = f"to=<{route.recipient}>, relay={route.ip}[{route.ip}]:{route.port}"

    def noted() -> list[str]:
        lines = smarthost.log.read_text().splitlines()
        return [line for line in lines if begin in line and "status=sent (250" in line]

    wait_until(noted, "Postfix to note that it was sent")
