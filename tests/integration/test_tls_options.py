"""TLS of reception as its clients meet it, with the configurations of docs/guide/tls.md and a real ``openssl``."""

from __future__ import annotations

import smtplib
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.support.instance import Relay, free_port, wait_until
from tests.support.received import example, received
from tests.support.wire import Wire

CONTENT = b"Subject: hello\r\n\r\nhello\r\n"


class Secured:
    """A relay with a configuration of the guide; its ports are free ones of this machine."""

    def __init__(self, folder: Path, containing: str) -> None:
        self.folder = folder
        self.authority, self.clients = trustme.CA(), trustme.CA()
        self.certificate, self.key = folder / "cert.pem", folder / "key.pem"
        self.renew()
        self.clients.cert_pem.write_to_path(str(folder / "clients.pem"))
        self.address = f"embedded://{folder / 'queue'}"
        self.relay = Relay(folder, self.address, verb="receive", smtp_threads=1)
        self.submission, self.secure = free_port(), free_port()
        letsencrypt = "/etc/letsencrypt/live/mail.example.com"
        replaced: dict[str, object] = {"25,587": f"{self.relay.port},{self.submission}", "@587": f"@{self.submission}"}
        if containing == "smtp-ciphers":
            replaced |= {
                f"{letsencrypt}/fullchain.pem": self.certificate, f"{letsencrypt}/privkey.pem": self.key,
                "@25": f"@{self.relay.port}", "smtp-secure-port: 465": f"smtp-secure-port: {self.secure}",
            }  # fmt: skip
        else:
            replaced |= {
                "/etc/mtaq/mail.example.com.pem": self.certificate, "/etc/mtaq/mail.example.com.key": self.key,
                "/etc/mtaq/clients-ca.pem": folder / "clients.pem",
            }  # fmt: skip
        self.relay.options |= example("tls.md", containing, replaced)

    def renew(self) -> str:
        """Write a new certificate and its key; return the certificate as a peer sees it."""
        issued = self.authority.issue_cert("relay.test")
        for path, blob in ((self.certificate, issued.cert_chain_pems[0]), (self.key, issued.private_key_pem)):
            beside = path.with_suffix(".new")
            blob.write_to_path(str(beside))
            beside.replace(path)
        return issued.cert_chain_pems[0].bytes().decode().strip()

    def openssl(self, port: int, *arguments: str) -> str:
        """Connect with ``openssl s_client`` and return what it says."""
        done = subprocess.run(
            ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", *arguments], input="QUIT\n",
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        return done.stdout + done.stderr

    def starttls(self, port: int, client: trustme.LeafCert | None = None) -> smtplib.SMTP:
        """Return a session under TLS, in which the client showed *client*."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.authority.configure_trust(context)
        context.check_hostname = False
        if client is not None:
            client.configure_cert(context)
        session = smtplib.SMTP("127.0.0.1", port, timeout=30)
        session.starttls(context=context)
        return session


@pytest.fixture
def ciphers(tmp_path: Path) -> Iterator[Secured]:
    """The first example: versions and ciphers by port."""
    secured = Secured(tmp_path, "smtp-ciphers")
    secured.relay.start()
    try:
        secured.relay.wait_ready()
        yield secured
    finally:
        secured.relay.cleanup()


@pytest.fixture
def client_certificates(tmp_path: Path) -> Iterator[Secured]:
    """The second example: certificates of clients on one port."""
    secured = Secured(tmp_path, "smtp-tls-client-ca")
    secured.relay.start()
    try:
        secured.relay.wait_ready()
        yield secured
    finally:
        secured.relay.cleanup()


def test_versions_and_ciphers_by_port(ciphers: Secured) -> None:
    """TLS 1.2 is refused where 1.3 is the least, and a cipher that was not chosen where others were."""
    tls12 = ("-starttls", "smtp", "-tls1_2")
    port, submission = ciphers.relay.port, ciphers.submission
    assert "TLS_AES" in ciphers.openssl(submission, "-starttls", "smtp", "-tls1_3")
    assert "(NONE)" in ciphers.openssl(submission, *tls12)
    assert "ECDHE-ECDSA-AES256-GCM" in ciphers.openssl(port, *tls12)
    assert "(NONE)" in ciphers.openssl(port, *tls12, "-cipher", "ECDHE-ECDSA-AES256-SHA384:ECDHE-ECDSA-AES256-SHA")
    assert "ECDHE-ECDSA-AES256-SHA" in ciphers.openssl(ciphers.secure, "-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-SHA")
    for oldest in ("-tls1", "-tls1_1"):
        assert "(NONE)" in ciphers.openssl(ciphers.secure, oldest, "-cipher", "DEFAULT:@SECLEVEL=0")


def test_a_renewed_certificate_is_served_without_a_reload(ciphers: Secured) -> None:
    """STARTTLS and the secure port have it within seconds, sessions that are open live on, and the log says so."""
    with ciphers.starttls(ciphers.relay.port) as before:
        renewed = ciphers.renew()

        def served() -> bool:
            return ssl.get_server_certificate(("127.0.0.1", ciphers.secure)).strip() == renewed

        wait_until(served, "the new certificate")
        assert renewed in ciphers.openssl(ciphers.relay.port, "-starttls", "smtp")
        assert before.noop()[0] == 250
    assert ciphers.relay.events("certificate.renewed")


def test_half_a_renewal_serves_the_old_certificate(ciphers: Secured) -> None:
    """The key is missing for a while: clients get in as before, and the log tells it once."""
    served = ssl.get_server_certificate(("127.0.0.1", ciphers.secure))
    key = ciphers.key.read_bytes()
    ciphers.renew()
    ciphers.key.write_bytes(key)

    def refused() -> bool:
        assert ssl.get_server_certificate(("127.0.0.1", ciphers.secure)) == served
        return bool(ciphers.relay.events("certificate.refused"))

    wait_until(refused, "the refusal to be logged")
    renewed = ciphers.renew()
    wait_until(
        lambda: ssl.get_server_certificate(("127.0.0.1", ciphers.secure)).strip() == renewed, "the new certificate"
    )
    assert len(ciphers.relay.events("certificate.refused")) <= 2


def test_a_client_certificate_logs_in(client_certificates: Secured) -> None:
    """It may relay where only logged-in clients may; the JSON names it, and what its certificate says."""
    secured = client_certificates
    client = secured.clients.issue_cert("ada@example.com", common_name="Ada Lovelace")
    with secured.starttls(secured.submission, client) as session:
        session.sendmail("ada@example.com", ["grace@example.org"], CONTENT)
    [message] = received(secured.address, 1)
    assert message["connection"]["user"] == "ada@example.com"
    certificate = message["connection"]["tls"]["client-cert"]
    assert certificate["verified"] is True
    assert "CN=Ada Lovelace" in certificate["subject"]
    assert "with ESMTPSA" in message["mime"]


def test_without_a_client_certificate_nobody_is_logged_in(client_certificates: Secured) -> None:
    """A client without one gets in and may not relay; on the other port nobody is asked, and one does not count."""
    secured = client_certificates
    with secured.starttls(secured.submission) as session, pytest.raises(smtplib.SMTPRecipientsRefused) as caught:
        session.sendmail("ada@example.com", ["grace@example.org"], CONTENT)
    assert caught.value.recipients["grace@example.org"][0] == 530
    client = secured.clients.issue_cert("ada@example.com")
    with secured.starttls(secured.relay.port, client) as session:
        session.sendmail("ada@example.com", ["grace@example.org"], CONTENT)
    [message] = received(secured.address, 1)
    assert "user" not in message["connection"]
    assert "client-cert" not in message["connection"]["tls"]


def test_a_certificate_of_another_authority_does_not_get_in(client_certificates: Secured) -> None:
    """The handshake fails, and nobody else is disturbed."""
    secured = client_certificates
    stranger = trustme.CA().issue_cert("ada@example.com")
    with pytest.raises((OSError, smtplib.SMTPException)), secured.starttls(secured.submission, stranger) as session:
        session.noop()
    with Wire(secured.submission) as wire:
        assert wire.say("EHLO client.test").startswith("250")


def test_mistakes_are_told_at_once(tmp_path: Path) -> None:
    """A cipher string that chooses nothing, a version that is none, authorities that cannot be read: exit status 78."""
    trustme.CA().issue_cert("relay.test").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "both.pem"))
    relay = Relay(
        tmp_path, f"embedded://{tmp_path / 'queue'}", verb="receive", smtp_certificate=tmp_path / "both.pem",
        smtp_key=tmp_path / "both.pem", smtp_ciphers="NOPE", smtp_tls_min="1.1",
        smtp_tls_client_ca=tmp_path / "missing.pem",
    )  # fmt: skip
    relay.start()
    try:
        assert relay.wait() == 78
        log = relay.log.read_text()
        for words in ("smtp-ciphers: 'NOPE' selects no cipher", "smtp-tls-min: '1.1'", "missing.pem cannot be read"):
            assert words in log
    finally:
        relay.cleanup()
