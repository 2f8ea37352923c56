"""Certificates that change on disk, and the names of clients' certificates; handshakes in memory."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import pytest
import trustme

from mtaq.config import load
from mtaq.model.errors import ConfigError
from mtaq.net.certificates import ServerTls, TlsOptions, tls_options


class Clock:
    """A clock moved by hand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Told:
    """Notes what is told."""

    def __init__(self) -> None:
        self.renewed: list[str] = []
        self.refused: list[str] = []

    def certificate_renewed(self, *, file: str) -> None:
        """Note it."""
        self.renewed.append(file)

    def certificate_refused(self, *, file: str, error: str) -> None:
        """Note it."""
        self.refused.append(error)


class Files:
    """A certificate and its key in two files, and what serves them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = trustme.CA()
        self.certificate, self.key = folder / "cert.pem", folder / "key.pem"
        self.clock, self.told = Clock(), Told()
        self.write(*self.issue())

    def issue(self) -> tuple[bytes, bytes]:
        """Return a new pair."""
        issued = self.authority.issue_cert("relay.test")
        return issued.cert_chain_pems[0].bytes(), issued.private_key_pem.bytes()

    def write(self, certificate: bytes | None = None, key: bytes | None = None) -> None:
        """Replace what is given, as careful programs do: a new file under the old name."""
        for path, content in ((self.certificate, certificate), (self.key, key)):
            if content is not None:
                beside = path.with_suffix(".new")
                beside.write_bytes(content)
                beside.replace(path)

    def serve(self, **options: object) -> ServerTls:
        """Return what serves them."""
        made = TlsOptions(certificate=self.certificate, key=self.key, **options)  # type: ignore[arg-type]  # passed on as they are
        return ServerTls(made, events=self.told, clock=self.clock)

    def served(self, tls: ServerTls) -> bytes:
        """Return the certificate that a client sees now, in PEM."""
        _, client = handshake(tls.context, trusting(self.authority))
        found = client.getpeercert(binary_form=True)
        assert found is not None
        return ssl.DER_cert_to_PEM_cert(found).encode()

    def serves(self, tls: ServerTls, certificate: bytes) -> bool:
        """Is *certificate* what a client sees now?"""
        return self.served(tls).split() == certificate.split()


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """A certificate and its key."""
    return Files(tmp_path)


def trusting(authority: trustme.CA, client: trustme.LeafCert | None = None) -> ssl.SSLContext:
    """Return a client's context that shows *client*."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    if client is not None:
        client.configure_cert(context)
    return context


def handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Carry a handshake out in memory; return both ends."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server, server_hostname="relay.test"),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ends[1], ends[0]


def test_a_renewed_pair_is_served_within_a_second(files: Files) -> None:
    """Files are looked at once a second, when somebody asks, and a change is told once."""
    tls = files.serve()
    certificate, key = files.issue()
    files.write(certificate, key)
    files.clock.now += 0.9
    assert not files.serves(tls, certificate)
    files.clock.now += 0.2
    assert files.serves(tls, certificate)
    files.clock.now += 60
    assert files.serves(tls, certificate)
    assert files.told.renewed == [str(files.certificate)]


def test_the_context_stays_while_nothing_changes(files: Files) -> None:
    """A look without a change costs no reading: the context is the same object, and so are session tickets."""
    tls = files.serve()
    before = tls.context
    files.clock.now += 3600
    assert tls.context is before


def test_half_a_renewal_serves_the_old_pair(files: Files) -> None:
    """A new certificate whose key is not there yet: the old pair goes on, told once; with the key the new one comes."""
    tls = files.serve()
    old = files.certificate.read_bytes()
    certificate, key = files.issue()
    files.write(certificate=certificate)
    for _ in range(3):
        files.clock.now += 2
        assert files.serves(tls, old)
    assert len(files.told.refused) == 1
    assert str(files.key) in files.told.refused[0]
    files.write(key=key)
    files.clock.now += 2
    assert files.serves(tls, certificate)
    assert len(files.told.renewed) == 1


def test_files_that_vanish_or_break_serve_the_old_pair(files: Files) -> None:
    """A removed file, and one full of nonsense, are told of, each once; the old pair goes on."""
    tls = files.serve()
    old = files.certificate.read_bytes()
    files.certificate.unlink()
    for _ in range(2):
        files.clock.now += 2
        assert files.serves(tls, old)
    files.certificate.write_text("nonsense")
    files.clock.now += 2
    assert files.serves(tls, old)
    assert len(files.told.refused) == 2
    assert "No such file" in files.told.refused[0]
    files.write(old)
    files.clock.now += 2
    assert files.serves(tls, old)


def test_a_link_that_is_switched_over_counts(tmp_path: Path) -> None:
    """Kubernetes and certbot switch a link above the files: that is a change of both at once."""
    first, second, link = tmp_path / "first", tmp_path / "second", tmp_path / "data"
    for folder in (first, second):
        folder.mkdir()
    files = Files(first)
    link.symlink_to(first)
    files.certificate, files.key = link / "cert.pem", link / "key.pem"
    tls = files.serve()
    certificate, key = files.issue()
    (second / "cert.pem").write_bytes(certificate)
    (second / "key.pem").write_bytes(key)
    fresh = tmp_path / "data.new"
    fresh.symlink_to(second)
    os.replace(fresh, link)
    files.clock.now += 2
    assert files.serves(tls, certificate)
    assert files.told.refused == []


def test_what_cannot_be_used_at_the_start_is_an_error(files: Files) -> None:
    """There is no old pair to go on with."""
    files.write(key=files.issue()[1])
    with pytest.raises(ConfigError, match=r"key\.pem"):
        files.serve()


def test_versions_and_ciphers(files: Files) -> None:
    """``floor`` and ``ciphers`` hold for every context, the renewed ones included."""
    tls = files.serve(floor="1.3", ciphers="ECDHE+AESGCM")
    old_client = trusting(files.authority)
    old_client.maximum_version = ssl.TLSVersion.TLSv1_2
    for _ in range(2):
        with pytest.raises(ssl.SSLError):
            handshake(tls.context, old_client)
        names = {cipher["name"] for cipher in tls.context.get_ciphers() if cipher["protocol"] == "TLSv1.2"}
        assert names
        assert all("GCM" in name for name in names)
        files.write(*files.issue())
        files.clock.now += 2


@pytest.mark.parametrize(
    ("names", "common_name", "user", "subject"),
    [
        (["ada@example.org", "host.test"], "Ada", "ada@example.org", "CN=Ada"),
        (["host.test"], "Ada L.", "Ada L.", "CN=Ada L."),
        (["host.test"], None, "host.test", ""),
        (["host.test"], "two\nlines", "host.test", ""),
    ],
)
def test_who_a_client_certificate_logs_in(
    files: Files, names: list[str], common_name: str | None, user: str, subject: str
) -> None:
    """An e-mail address goes before the common name, that before a DNS name; a name with a line end is none."""
    clients = trustme.CA()
    clients.cert_pem.write_to_path(files.folder / "clients.pem")
    tls = files.serve(client_authorities=files.folder / "clients.pem")
    client = trusting(files.authority, clients.issue_cert(*names, common_name=common_name))
    session, _ = handshake(tls.context, client)
    assert tls.peer_user(session) == user
    found = tls.facts(session).client_cert
    assert found is not None
    assert found.verified
    assert subject in found.subject
    assert found.subject.isprintable()


def test_without_a_client_certificate_nobody_logs_in(files: Files) -> None:
    """Clients are asked, and may have none; on ports that do not ask, one that is there does not count."""
    clients = trustme.CA()
    clients.cert_pem.write_to_path(files.folder / "clients.pem")
    asking = files.serve(client_authorities=files.folder / "clients.pem")
    session, _ = handshake(asking.context, trusting(files.authority))
    assert asking.peer_user(session) is None
    assert asking.facts(session).client_cert is None
    silent = files.serve()
    session, _ = handshake(silent.context, trusting(files.authority, clients.issue_cert("ada@example.org")))
    assert silent.peer_user(session) is None
    assert silent.facts(session).version == "TLSv1.3"


def test_a_certificate_of_another_authority_ends_the_handshake(files: Files) -> None:
    """Nobody gets in with a certificate that those authorities did not sign."""
    clients, others = trustme.CA(), trustme.CA()
    clients.cert_pem.write_to_path(files.folder / "clients.pem")
    tls = files.serve(client_authorities=files.folder / "clients.pem")
    with pytest.raises(ssl.SSLError):
        handshake(tls.context, trusting(files.authority, others.issue_cert("ada@example.org")))


def test_a_replaced_client_authority_counts_at_once(files: Files) -> None:
    """The authorities are files like the others: who was signed by the old ones is refused within a second."""
    old, new = trustme.CA(), trustme.CA()
    path = files.folder / "clients.pem"
    old.cert_pem.write_to_path(path)
    tls = files.serve(client_authorities=path)
    client = trusting(files.authority, old.issue_cert("ada@example.org"))
    assert tls.peer_user(handshake(tls.context, client)[0]) == "ada@example.org"
    new.cert_pem.write_to_path(path)
    files.clock.now += 2
    with pytest.raises(ssl.SSLError):
        handshake(tls.context, client)


def test_the_options_of_a_port(tmp_path: Path) -> None:
    """A port without a certificate has no TLS; else everything that its options say is there."""
    assert tls_options(load(path=os.devnull, environ={}, overrides=[]).receive(25)) is None
    files = Files(tmp_path)
    files.authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    given = {
        "certificate": files.certificate, "key": files.key, "ciphers": "ECDHE+AESGCM", "tls-min": "1.3",
        "tls-client-ca": tmp_path / "ca.pem",
    }  # fmt: skip
    overrides = [f"--smtp-{name}={value}" for name, value in given.items()]
    options = load(path=os.devnull, environ={}, overrides=overrides)
    assert tls_options(options.receive(25)) == TlsOptions(
        certificate=files.certificate, key=files.key, ciphers="ECDHE+AESGCM", floor="1.3",
        client_authorities=tmp_path / "ca.pem",
    )  # fmt: skip
