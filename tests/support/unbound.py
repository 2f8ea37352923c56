"""A real unbound: a validating resolver with a zone of the test's own, signed by dnspython."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path

import dns.dnssec
import dns.dnssectypes
import dns.message
import dns.query
import dns.zone
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.ports import free_port

PROGRAM = shutil.which("unbound", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")

HOUSEHOLD = """
server:
    interface: 127.0.0.1@{port}
    port: {port}
    chroot: ""
    username: ""
    directory: "{folder}"
    pidfile: ""
    use-syslog: no
    do-ip6: no
    trust-anchor-file: "{folder}/anchor"
    domain-insecure: "insecure.test"
    local-zone: "test." nodefault
auth-zone:
    name: "signed.test"
    zonefile: "{folder}/signed.test"
    for-downstream: no
    for-upstream: yes
auth-zone:
    name: "insecure.test"
    zonefile: "{folder}/insecure.test"
    for-downstream: no
    for-upstream: yes
"""

HEAD = """\
$TTL 300
@ IN SOA ns owner 1 3600 600 86400 60
@ IN NS ns
ns IN A 127.0.0.1
"""


class Unbound:
    """Answers for ``signed.test``, which it can prove, and ``insecure.test``, which it cannot; a context manager."""

    def __init__(self, folder: Path, *, signed: str, insecure: str = "", configuration: str = "") -> None:
        """
        Serve the records *signed* and *insecure* (zone files, RFC 1035 §5) out of *folder*.

        Args:
            configuration: What an operator would write; ports and folders are the test's.
        """
        self.address = ("127.0.0.1", free_port(kind=socket.SOCK_DGRAM))
        zone = dns.zone.from_text(HEAD + signed, "signed.test.", relativize=False)
        key = ec.generate_private_key(ec.SECP256R1())
        public = dns.dnssec.make_dnskey(key.public_key(), dns.dnssectypes.Algorithm.ECDSAP256SHA256, flags=257)
        dns.dnssec.sign_zone(zone, keys=[(key, public)], lifetime=3600)
        zone.to_file(str(folder / "signed.test"))
        (folder / "insecure.test").write_text("$ORIGIN insecure.test.\n" + HEAD + insecure)
        (folder / "anchor").write_text(f"signed.test. IN DNSKEY {public}\n")
        self._path = folder / "unbound.conf"
        self._path.write_text(configuration + HOUSEHOLD.format(port=self.address[1], folder=folder))
        self._log = folder / "unbound.log"

    def __enter__(self) -> Unbound:
        assert PROGRAM is not None
        with self._log.open("wb") as log:
            self._process = subprocess.Popen([PROGRAM, "-d", "-c", str(self._path)], stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                raise AssertionError(f"unbound does not run:\n{self._log.read_text()}")
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def _answers(self) -> bool:
        query = dns.message.make_query("ns.signed.test.", "A")
        try:
            return bool(dns.query.udp(query, self.address[0], timeout=1, port=self.address[1]).answer)
        except (dns.exception.DNSException, OSError):
            return False
