"""The file of users and hashes."""

from __future__ import annotations

import os

import pytest

from mtaq.smtpauth import Verdict, users_file
from mtaq.smtpauth.users_file import UsersFile, parse

# The password is "password".
HASH = "$6$devsalt0$y0WlqTqRTWjxwy/m9kVJgfwVbQX1I6cZr5lD4xDLWGzyfDSUZrVGqazZL8I6nVDlowjnooIE6NP2nPWlExs1a0"
OTHER = "$5$devs0$EEfrdCwg3IWD3m6G./8P8Oq.VLQLOQfs3rhpi/qNV9B"
IP = "192.0.2.1"


@pytest.fixture
async def users(tmp_path):
    """A file with Ada and one user without a password."""
    path = tmp_path / "users"
    path.write_text(f"ada:{HASH}\nlocked:!{HASH}\n")
    form = UsersFile(str(path))
    yield form, path
    await form.close()


@pytest.mark.parametrize(
    ("user", "password", "verdict"),
    [("ada", "password", Verdict.ACCEPTED), ("ada", "Password", Verdict.REFUSED), ("eve", "password", Verdict.REFUSED),
     ("locked", "password", Verdict.REFUSED), ("ada:", "password", Verdict.REFUSED), (HASH, "x", Verdict.REFUSED)],
)  # fmt: skip
async def test_check(users, user, password, verdict):
    """Who stands in the file with that password's hash is accepted."""
    assert await users[0].check(user, password, IP) is verdict


async def test_the_file_is_read_again_when_it_changed(users):
    """A user added, changed or removed counts at once, whether the file was written or replaced."""
    form, path = users
    assert await form.check("bob", "password", IP) is Verdict.REFUSED
    path.write_text(f"ada:{HASH}\nbob:{OTHER}\n")
    assert await form.check("bob", "password", IP) is Verdict.ACCEPTED
    times = path.stat()
    replacement = path.with_suffix(".new")
    replacement.write_text(f"ada:{HASH}\neve:{OTHER}\n")
    os.utime(replacement, ns=(times.st_atime_ns, times.st_mtime_ns))
    replacement.rename(path)
    assert await form.check("bob", "password", IP) is Verdict.REFUSED
    assert await form.check("eve", "password", IP) is Verdict.ACCEPTED


async def test_a_file_that_cannot_be_read(users):
    """Without its file the form does not know, even of whom it knew before; when it is back, it does."""
    form, path = users
    assert await form.check("ada", "password", IP) is Verdict.ACCEPTED
    path.rename(path.with_suffix(".away"))
    with pytest.raises(OSError, match="No such file"):
        await form.check("ada", "password", IP)
    path.with_suffix(".away").rename(path)
    assert await form.check("ada", "password", IP) is Verdict.ACCEPTED


@pytest.mark.parametrize("content", [f"ada:{HASH}\n", "locked:!\n", ""])
async def test_unknown_users_cost_a_hash(tmp_path, monkeypatch, content):
    """For a user that does not exist a hash is computed as well, so that time does not tell who does."""
    computed = []
    monkeypatch.setattr(users_file, "fits", lambda password, hash_text: computed.append(hash_text))
    path = tmp_path / "users"
    path.write_text(content)
    form = UsersFile(str(path))
    assert await form.check("eve", "x", IP) is Verdict.REFUSED
    assert len(computed) == 1
    assert computed[0].startswith("$6$")
    await form.close()


async def test_a_user_called_like_the_stand_in(tmp_path):
    """The hash that stands in for unknown users lets nobody in."""
    path = tmp_path / "users"
    path.write_text("")
    form = UsersFile(str(path))
    assert await form.check("eve", "", IP) is Verdict.REFUSED
    await form.close()


def test_lines():
    """Comments, empty lines, fields of /etc/shadow, Windows line ends and bytes that are no text do no harm."""
    content = f"# users\n\nada:{HASH}:19000:0:99999:7:::\r\n bob:{OTHER} \nada:{OTHER}\nnobody\n:x\n".encode()
    assert parse(content + b"\xff\xfe:x\n#eve:x\n") == {"ada": HASH, "bob": OTHER, "\ufffd\ufffd": "x"}


async def test_a_file_that_is_too_large(tmp_path, monkeypatch):
    """A file beyond all measure is not taken into memory."""
    monkeypatch.setattr(users_file, "_MAX_FILE_BYTES", 10)
    path = tmp_path / "users"
    path.write_text(f"ada:{HASH}\n")
    form = UsersFile(str(path))
    with pytest.raises(OSError, match="larger than 10 bytes"):
        await form.check("ada", "password", IP)
    await form.close()
