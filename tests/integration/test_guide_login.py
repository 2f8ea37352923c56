"""The examples of docs/guide/login.md, run as they stand there; only folders and hosts are those of the test."""

from __future__ import annotations

import hashlib
import os
import re
import sqlite3
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from mtaq.cli import exits
from tests.support import login_servers
from tests.support.login_servers import (
    FREERADIUS,
    PASSWORD,
    SLAPD,
    running_freeradius,
    running_slapd,
    running_web_server,
    system_account,
)

TEXT = (Path(__file__).parents[2] / "docs/guide/login.md").read_text("utf-8")
PAM_SERVICE = Path("/etc/pam.d/mtaq")

Check = Callable[..., int]


def blocks(language: str) -> list[str]:
    """Every block of a language, in the guide's order."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)
    return [text for name, text in found if name == language]


def form(scheme: str) -> str:
    """The configuration under a form's heading."""
    (block,) = [block for block in blocks("") if re.fullmatch(rf"smtp-auth: {scheme}://\S+\n", block)]
    return block


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    """Who signed the certificates in the folder of the configuration, and those of servers."""
    authority = trustme.CA()
    issued = authority.issue_cert("mail.example.com", "localhost")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "mail.example.com.pem")
    issued.private_key_pem.write_to_path(tmp_path / "mail.example.com.key")
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    return authority


@pytest.fixture
def environment(tmp_path: Path, authority: trustme.CA) -> dict[str, str]:
    """What the guide's commands run with, but for the configuration."""
    return {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "SSL_CERT_FILE": str(tmp_path / "authority.pem"),
        "LANG": "C.UTF-8",
    }


def variables(configuration: str, folder: Path) -> dict[str, str]:
    """A configuration as environment variables, its folder replaced."""
    pairs = (line.split(": ", 1) for line in configuration.replace("/etc/mtaq", str(folder)).splitlines())
    return {"MTAQ_" + key.upper().replace("-", "_").replace("@", "__"): value for key, value in pairs}


@pytest.fixture
def check(tmp_path: Path, environment: dict[str, str]) -> Check:
    """Try a login with a configuration; return the exit status."""

    def run(configuration: str, password: str, user: str = "ada") -> int:
        certificate = "smtp-certificate: /etc/mtaq/mail.example.com.pem\nsmtp-key: /etc/mtaq/mail.example.com.key\n"
        done = subprocess.run(
            [sys.executable, "-m", "mtaq", "check-auth", user, "--password-stdin"],
            input=f"{password}\n".encode(), check=False, capture_output=True,
            env={**environment, **variables(certificate + configuration, tmp_path)},
        )  # fmt: skip
        assert done.stderr == b""
        return done.returncode

    return run


def test_commands(tmp_path: Path, environment: dict[str, str]) -> None:
    """The commands print what the guide says, with the configuration at its beginning."""
    environment |= variables(blocks("")[0], tmp_path)
    found = re.findall(r"^```sh\n(.*?)^```$(?:\n+```text\n(.*?)^```$)?", TEXT, flags=re.MULTILINE | re.DOTALL)
    assert len(found) == 3
    (tmp_path / "users").touch()
    for command, output in ((part.replace("/etc/mtaq", str(tmp_path)) for part in pair) for pair in found):
        ran = subprocess.run(
            ["bash", "-c", command], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            check=False,
        )  # fmt: skip
        assert ran.stdout == output, command


def test_hardcoded(check: Check) -> None:
    """Both users of the example can log in."""
    assert check(form("hardcoded"), "correct horse") == exits.OK
    assert check(form("hardcoded"), "x,y", "grace@example.com") == exits.OK
    assert check(form("hardcoded"), "x,y") == exits.NO_PERMISSION


@pytest.mark.parametrize("method", ["-6", "-5"])
def test_file(check: Check, tmp_path: Path, method: str) -> None:
    """A line with a hash of the kinds named lets its user in."""
    made = subprocess.run(["openssl", "passwd", method, "x"], check=True, capture_output=True, text=True)
    (tmp_path / "users").write_text(f"# users\nada:{made.stdout.strip()}:more\n")
    assert check(form("file"), "x") == exits.OK
    assert check(form("file"), "y") == exits.NO_PERMISSION


def test_exec(check: Check, tmp_path: Path) -> None:
    """The program of the example decides by its database, and says that it does not know when there is none."""
    (script,) = blocks("python")
    (tmp_path / "login").write_text(script.replace("/var/lib/accounts", str(tmp_path)))
    (tmp_path / "login").chmod(0o755)
    assert check(form("exec"), "x") == exits.TEMPORARY
    with sqlite3.connect(tmp_path / "accounts.db") as database:
        database.execute("CREATE TABLE users (name, salt, hash)")
        hashed = hashlib.scrypt(PASSWORD.encode(), salt=b"salt", n=16384, r=8, p=1)
        database.execute("INSERT INTO users VALUES ('ada', ?, ?)", (b"salt", hashed))
    database.close()
    assert check(form("exec"), PASSWORD) == exits.OK
    assert check(form("exec"), "x") == exits.NO_PERMISSION
    assert check(form("exec"), PASSWORD, "eve") == exits.NO_PERMISSION


def test_http(check: Check, authority: trustme.CA) -> None:
    """A web server of that form decides."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with running_web_server(("ada",), tls=context) as web:
        configuration = form("https").replace("login.example.com", f"localhost:{web.port}")
        assert check(configuration, PASSWORD) == exits.OK
        assert check(configuration, "x") == exits.NO_PERMISSION


@pytest.mark.peers
@pytest.mark.skipif(not os.path.exists(SLAPD), reason="install slapd (Debian package) to run this")
def test_ldap(check: Check, tmp_path: Path) -> None:
    """The directory is asked for the name that the guide says; so it is behind another form."""
    (tmp_path / "slapd").mkdir()
    (tmp_path / "users").touch()
    users = {"uid=ada,ou=people,dc=example,dc=com": "ada"}
    files = {"certificate": tmp_path / "mail.example.com.pem", "key": tmp_path / "mail.example.com.key"}
    (several,) = [block for block in blocks("") if block.startswith("smtp-auth: file") and "ldaps" in block]
    with running_slapd(tmp_path / "slapd", users, **files) as directory:
        for configuration in (form("ldaps"), several):
            here = configuration.replace("directory.example.com", f"localhost:{directory.tls_port}")
            assert check(here, PASSWORD) == exits.OK
            assert check(here, "x") == exits.NO_PERMISSION


@pytest.mark.peers
@pytest.mark.skipif(not os.path.exists(FREERADIUS), reason="install freeradius (Debian package) to run this")
def test_radius(check: Check, tmp_path: Path) -> None:
    """A server with the section that the guide shows is believed."""
    assert blocks("unlang") == [login_servers.SIGNING]
    with running_freeradius(tmp_path, secret="s3cr@t", users=("ada",)) as port:
        configuration = form("radius").replace("radius.example.com:1812", f"127.0.0.1:{port}")
        assert check(configuration, PASSWORD) == exits.OK
        assert check(configuration, "x") == exits.NO_PERMISSION


@pytest.mark.peers
@pytest.mark.skipif(os.geteuid() != 0 or PAM_SERVICE.exists(), reason="needs root, and no PAM service of that name")
def test_users(check: Check) -> None:
    """With the PAM service that the guide shows, accounts that are listed can log in."""
    (service,) = blocks("pam")
    with system_account() as user:
        PAM_SERVICE.write_text(service)
        try:
            assert check(form("users").replace("client*", f"{user[:-1]}*"), PASSWORD, user) == exits.OK
            assert check(form("users").replace("client*", f"{user[:-1]}*"), "x", user) == exits.NO_PERMISSION
            assert check(form("users"), PASSWORD, user) == exits.NO_PERMISSION
        finally:
            PAM_SERVICE.unlink()


def test_every_example_is_run() -> None:
    """Each block of the guide is one that a test above runs."""
    assert len(blocks("")) == 9
    assert len(re.findall("^```", TEXT, flags=re.MULTILINE)) == 2 * (9 + 3 + 2 + 3)
