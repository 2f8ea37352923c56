"""The operator's own program, as a process."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

import pytest

from mtaq.smtpauth import Authenticator, Verdict
from mtaq.smtpauth.program import Program

IP = "192.0.2.1"


def program(folder: Path, script: str) -> Program:
    """A shell script as program."""
    path = folder / "login"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return Program(str(path))


async def test_what_it_is_given(tmp_path):
    """User and password come as two lines on standard input, user and address in the environment too."""
    form = program(tmp_path, f"cat > {tmp_path}/input; env | sort > {tmp_path}/environment; pwd > {tmp_path}/folder")
    assert await form.check("ada $(x) ü", 'se"cret; rm', IP) is Verdict.ACCEPTED
    assert (tmp_path / "input").read_text() == 'ada $(x) ü\nse"cret; rm\n'
    assert (tmp_path / "folder").read_text() == "/\n"
    environment = dict(line.split("=", 1) for line in (tmp_path / "environment").read_text().splitlines())
    assert environment.keys() <= {"MTAQ_USER", "MTAQ_CLIENT_IP", "PATH", "LANG", "PWD", "OLDPWD", "SHLVL", "_"}
    assert (environment["MTAQ_USER"], environment["MTAQ_CLIENT_IP"]) == ("ada $(x) ü", IP)


async def test_it_has_no_files_of_ours(tmp_path):
    """It inherits no open file, and what it prints goes nowhere."""
    with open(tmp_path / "open", "w") as file:
        os.set_inheritable(file.fileno(), True)
        form = program(tmp_path, f"ls -l /proc/self/fd > {tmp_path}/fds; echo noise; echo noise >&2")
        assert await form.check("ada", "secret", IP) is Verdict.ACCEPTED
    assert str(tmp_path / "open") not in (tmp_path / "fds").read_text()


async def test_it_has_no_files_of_other_programs(tmp_path):
    """Of programs that run at the same time none has the standard input, and so the password, of another."""
    form = program(
        tmp_path,
        f"mkdir {tmp_path}/$MTAQ_USER; until [ -d {tmp_path}/a ] && [ -d {tmp_path}/b ]; do sleep 0.01; done; "
        f"ls /proc/self/fd > {tmp_path}/$MTAQ_USER/fds",
    )
    async with asyncio.timeout(30):
        await asyncio.gather(*(form.check(user, "secret", IP) for user in "ab"))
    for user in "ab":
        assert (tmp_path / user / "fds").read_text().split() == ["0", "1", "2", "3"]  # the last is the listing's own


async def test_its_time_is_up_before_it_has_started(tmp_path):
    """A program that is given up on while it is being started is killed as soon as it is there."""
    form = program(tmp_path, "sleep 600; exit 0")
    for _ in range(5):
        asking = asyncio.create_task(form.check("ada", "secret", IP))
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    await asyncio.get_running_loop().shutdown_default_executor()  # all that was begun has started
    async with asyncio.timeout(30):
        while runs(str(tmp_path)):
            await asyncio.sleep(0.01)


def runs(path: str) -> bool:
    """Is there a process with *path* in its arguments?"""
    for arguments in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.encode() in arguments.read_bytes():
                return True
    return False


@pytest.mark.parametrize(("status", "verdict"), [(0, Verdict.ACCEPTED), (1, Verdict.REFUSED), (125, Verdict.REFUSED)])
async def test_exit_status(tmp_path, status, verdict):
    """0 accepts, 1 to 125 refuse."""
    assert await program(tmp_path, f"exit {status}").check("ada", "secret", IP) is verdict


@pytest.mark.parametrize("script", ["exit 126", "exit 127", "exit 255", "kill -9 $$", "kill -15 $$", "no-such-command"])
async def test_other_ends(tmp_path, script):
    """Any other end, by status or signal, is nobody's answer."""
    with pytest.raises(OSError, match="ended with status"):
        await program(tmp_path, script).check("ada", "secret", IP)


async def test_what_cannot_be_run(tmp_path):
    """A program that is not there or not executable is nobody's answer."""
    form = program(tmp_path, "exit 0")
    (tmp_path / "login").chmod(0o644)
    with pytest.raises(PermissionError):
        await form.check("ada", "secret", IP)
    with pytest.raises(FileNotFoundError):
        await Program(f"{tmp_path}/absent").check("ada", "secret", IP)


async def test_its_input_is_not_read(tmp_path):
    """A program that does not read what it is given can answer all the same."""
    assert await program(tmp_path, "exec <&-; exit 0").check("ada", "x" * 1024, IP) is Verdict.ACCEPTED


async def test_when_its_time_is_up(tmp_path):
    """A program that hangs is killed with what it started."""
    form = program(tmp_path, f"sleep 600 & echo $! > {tmp_path}/new; mv {tmp_path}/new {tmp_path}/child; wait")
    asking = asyncio.create_task(form.check("ada", "secret", IP))
    async with asyncio.timeout(30):
        while not (tmp_path / "child").exists():
            await asyncio.sleep(0.01)
        asking.cancel()
        await asyncio.wait([asking])
        while is_alive(int((tmp_path / "child").read_text())):
            await asyncio.sleep(0.01)
    assert asking.cancelled()


def is_alive(pid: int) -> bool:
    """Is there such a process that is not just waiting to be collected?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_many_at_once(tmp_path):
    """Of many logins at once no more programs run than allowed, and each gets its own answer."""
    form = program(
        tmp_path,
        f'read user; read password; n=$(mktemp {tmp_path}/running.XXXXXX); ls {tmp_path}/running.* | wc -l >> '
        f'{tmp_path}/counts; rm $n; [ "$user" = "$password" ]',
    )  # fmt: skip
    form.at_once = 4
    authenticator = Authenticator([form], clock=lambda: 0.0, on_unavailable=lambda *_: None)
    logins = [(f"user{n}", f"user{n}" if n % 2 else "x") for n in range(16)]
    verdicts = await asyncio.gather(*(authenticator.check(*login, client_ip=IP) for login in logins))
    assert [verdict is Verdict.ACCEPTED for verdict in verdicts] == [user == password for user, password in logins]
    assert max(map(int, (tmp_path / "counts").read_text().split())) <= 4
