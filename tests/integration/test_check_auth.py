"""``mtaq check-auth`` as the operator sees it."""

from __future__ import annotations

import io
import os
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from mtaq.cli import exits
from mtaq.cli.main import main
from tests.support.login_servers import PASSWORD, free_port, running_web_server

# The password is "password".
HASH = "$6$devsalt0$y0WlqTqRTWjxwy/m9kVJgfwVbQX1I6cZr5lD4xDLWGzyfDSUZrVGqazZL8I6nVDlowjnooIE6NP2nPWlExs1a0"

Check = Callable[..., int]


@pytest.fixture
def certificate(tmp_path: Path) -> str:
    """Lines of a configuration: ports that may take logins."""
    issued = trustme.CA().issue_cert("mail.example.com")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    return f"smtp-port: 25,587\nsmtp-certificate: {tmp_path}/cert.pem\nsmtp-key: {tmp_path}/key.pem\n"


@pytest.fixture
def check(tmp_path: Path, certificate: str, monkeypatch: pytest.MonkeyPatch) -> Check:
    """Run the verb with a configuration, the password on standard input."""
    for name in [name for name in os.environ if name.startswith("MTAQ_")]:
        monkeypatch.delenv(name)

    def run(lines: str, *arguments: str, password: bytes = b"password\n") -> int:
        (tmp_path / "mtaq.conf").write_text(certificate + lines)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(password)))
        return main(["check-auth", *arguments, "--password-stdin", "--config", str(tmp_path / "mtaq.conf")])

    return run


def test_every_form_is_told(check: Check, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The verdict of each form asked is printed, in order, up to the first that accepts."""
    (tmp_path / "users").write_text(f"ada:{HASH}\n")
    port = free_port()
    lines = f"smtp-auth: hardcoded://ada:other http://127.0.0.1:{port}/ file://{tmp_path}/users users://ada\n"
    assert check(lines, "ada") == exits.OK
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "hardcoded://: refused"
    assert told[1].startswith(f"http://127.0.0.1:{port}/: unavailable (")
    assert told[2:] == [f"file://{tmp_path}/users: accepted"]


@pytest.mark.parametrize(
    ("forms", "password", "status"),
    [
        ("hardcoded://ada:password", b"password\n", exits.OK),
        ("hardcoded://ada:password", b"password", exits.OK),
        ("hardcoded://ada:password", b"password\r\n", exits.OK),
        ("hardcoded://ada:password", b"wrong\n", exits.NO_PERMISSION),
        ("hardcoded://ada:password", b"\n", exits.NO_PERMISSION),
        ("hardcoded://ada:password", b"", exits.NO_PERMISSION),
        ("hardcoded://ada:password", b"\xff\n", exits.NO_PERMISSION),
        ("hardcoded://bob:password http://127.0.0.1:{port}/", b"password\n", exits.TEMPORARY),
        ("http://127.0.0.1:{port}/ hardcoded://bob:password", b"password\n", exits.TEMPORARY),
    ],
)
def test_exit_status(check: Check, forms: str, password: bytes, status: int) -> None:
    """0 says accepted, 77 refused, 75 that nobody could say."""
    assert check(f"smtp-auth: {forms.format(port=free_port())}\n", "ada", password=password) == status


def test_ports(check: Check, capsys: pytest.CaptureFixture[str]) -> None:
    """With ``--port`` the forms of that port are asked; without forms the operator is told where there are some."""
    lines = "smtp-auth@587: hardcoded://ada:password\n"
    assert check(lines, "ada", "--port", "587") == exits.OK
    assert check(lines, "ada") == exits.CONFIG
    assert check(lines, "ada", "--port", "25") == exits.CONFIG
    assert check("", "ada") == exits.CONFIG
    assert check(lines, "ada", "--port", "x") == exits.USAGE
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "mtaq check-auth: smtp-auth is set for some ports only; say --port 587"
    assert told[1] == "mtaq check-auth: smtp-auth is not set for port 25"
    assert told[2] == "mtaq check-auth: smtp-auth is not set"


def test_the_password_is_asked_for(
    certificate: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without ``--password-stdin`` the terminal is asked; the password is not shown again."""
    (tmp_path / "mtaq.conf").write_text(f"{certificate}smtp-auth: hardcoded://ada:password\n")
    monkeypatch.setattr("getpass.getpass", lambda _prompt: "password")
    assert main(["check-auth", "ada", "--config", str(tmp_path / "mtaq.conf")]) == exits.OK
    told = capsys.readouterr()
    assert "password" not in told.out + told.err


def test_no_password_on_the_command_line() -> None:
    """There is no way to give the password as an argument."""
    assert main(["check-auth", "ada", "password"]) == exits.USAGE
    assert main(["check-auth", "ada", "--password", "x"]) == exits.USAGE


def test_authorities_of_the_operator(certificate: str, tmp_path: Path) -> None:
    """A server with a certificate of a private authority is trusted once SSL_CERT_FILE names that authority."""
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    with running_web_server(("ada",), tls=context) as web:
        (tmp_path / "mtaq.conf").write_text(f"{certificate}smtp-auth: https://localhost:{web.port}/\n")
        command = [sys.executable, "-m", "mtaq", "check-auth", "ada", "--password-stdin", "--config"]
        for environment, status in [({}, exits.TEMPORARY), ({"SSL_CERT_FILE": f"{tmp_path}/ca.pem"}, exits.OK)]:
            done = subprocess.run(
                [*command, str(tmp_path / "mtaq.conf")], input=PASSWORD.encode(), check=False, capture_output=True,
                env={"PATH": os.environ["PATH"], **environment},
            )  # fmt: skip
            assert done.returncode == status, done.stdout
            assert done.stderr == b""
