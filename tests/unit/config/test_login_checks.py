"""``smtp-auth`` beside the other options: certificates, files and who can read them."""

from __future__ import annotations

import os

import pytest

from mtaq.config import file_checks
from tests.unit.config.test_checks import certificate, loaded, mistakes

__all__ = ["certificate"]  # a fixture

CERTIFIED_ONLY = "port {} has no certificate, and nobody logs in without TLS; expected smtp-certificate too"


def test_logins_need_a_certificate(certificate):
    """A port that takes logins has a certificate; on a port that is closed it does not matter."""
    assert mistakes("smtp-port=25,587", "smtp-auth@587=hardcoded://a:b") == [
        f"smtp-auth@587: {CERTIFIED_ONLY.format(587)}"
    ]
    assert mistakes("smtp-auth=hardcoded://a:b") == [f"smtp-auth: {CERTIFIED_ONLY.format(25)}"]
    assert loaded("smtp-auth=hardcoded://a:b", *certificate)
    assert loaded("smtp-auth=hardcoded://a:b", "smtp-enabled=false")


def test_files_must_be_there(certificate, tmp_path):
    """A users file that is not there, and a program that cannot be run, are mistakes."""
    assert "cannot be read; expected a file of user:hash" in mistakes(f"smtp-auth=file://{tmp_path}/x", *certificate)[0]
    assert "cannot be read" in mistakes(f"smtp-auth=file://{tmp_path}", *certificate)[0]
    assert "cannot be run; expected a program" in mistakes(f"smtp-auth=exec://{tmp_path}/x", *certificate)[0]
    (tmp_path / "x").write_text("")
    assert loaded(f"smtp-auth=file://{tmp_path}/x", *certificate)
    assert "cannot be run" in mistakes(f"smtp-auth=exec://{tmp_path}/x", *certificate)[0]
    (tmp_path / "x").chmod(0o755)
    assert loaded(f"smtp-auth=exec://{tmp_path}/x", *certificate)


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_the_user_must_be_able_to_read_them(certificate, tmp_path, monkeypatch):
    """Files that only root can read are of no use to ``user``, /etc/shadow for system accounts among them."""
    users = tmp_path / "users"
    users.write_text("")
    users.chmod(0o600)
    shadow = tmp_path / "shadow"
    monkeypatch.setattr(file_checks, "SHADOW", str(shadow))
    told = "".join(mistakes(f"smtp-auth=file://{users} users://a", "user=nobody", *certificate))
    assert f"{users} cannot be read by user nobody" in told
    assert "users:// needs" not in told  # where there is no such file, PAM asks elsewhere
    shadow.write_text("")
    shadow.chmod(0o600)
    assert "cannot be read by user nobody" in "".join(mistakes("smtp-auth=users://a", "user=nobody", *certificate))
