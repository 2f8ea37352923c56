"""``mtaq run``, ``receive``, ``deliver``: one instance in the foreground; ``reload`` and ``health`` talk to it."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import json
import os
import pwd
import resource
import shutil
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mtaq.cli import exits
from mtaq.cli.parser import Subparsers
from mtaq.cli.settings import add_settings_arguments, load_or_exit, load_settings
from mtaq.config import Settings
from mtaq.model.errors import ConfigError

if TYPE_CHECKING:
    from mtaq.net.listeners import Listener

#: What each verb runs.
ROLES = {"run": ("receive", "deliver"), "receive": ("receive",), "deliver": ("deliver",)}

WORDS = {
    "run": "receive and deliver mail until stopped",
    "receive": "only receive: SMTP to the inbox queue",
    "deliver": "only deliver: the outbox queue to mail hosts",
}


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the verbs."""
    for verb, words in WORDS.items():
        parser = subparsers.add_parser(verb, help=words, description=words)
        add_settings_arguments(parser)
        parser.set_defaults(func=lambda args, verb=verb: _serve(args, verb))
    words = "have the running instance read its configuration anew"
    parser = subparsers.add_parser("reload", help=words, description=words)
    add_settings_arguments(parser)
    parser.set_defaults(func=_reload)
    words = "ask the running instance whether it can work; exit status 0 or 69 (needs metrics-port)"
    parser = subparsers.add_parser("health", help=words, description=words)
    add_settings_arguments(parser)
    parser.set_defaults(func=_health)


def _serve(args: argparse.Namespace, verb: str) -> int:
    settings = load_or_exit(args)
    # What follows is heavy to import; `mtaq health` runs every few seconds.
    from mtaq.net.listeners import listen

    roles = ROLES[verb]
    # They wait until the supervisor can obey them: an exception in the middle of an import would end in a crash.
    signal.pthread_sigmask(signal.SIG_BLOCK, exits.SIGNALS)
    try:
        raise_descriptor_limit()
        listeners: list[Listener] = []
        if "receive" in roles:
            for ports, implicit_tls in ((settings.listen.smtp_port, False), (settings.listen.smtp_secure_port, True)):
                enabled = [port for port in ports if settings.receive(port).smtp_enabled]
                listeners += listen(settings.listen.smtp_ip, enabled, implicit_tls=implicit_tls)
        make_folders(settings)
        become_user(settings.process.user)
        check_certificates(settings)
        with pid_file(Path(settings.process.run_directory) / f"{verb}.pid"):
            return _supervise(args, settings, roles, listeners)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return exits.CONFIG
    except OSError as error:
        print(f"mtaq: {exits.explain(error)}", file=sys.stderr)
        return exits.of_os_error(error)


def _supervise(args: argparse.Namespace, settings: Settings, roles: Sequence[str], listeners: list[Listener]) -> int:
    # Numbers are kept in files that all processes share; the library asks where when it is first imported.
    folder = Path(settings.process.run_directory) / f"metrics-{'-'.join(roles)}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    from mtaq.cli.supervisor import supervise

    return asyncio.run(
        supervise(
            settings,
            roles=roles,
            listeners=listeners,
            reload=lambda: load_settings(args),
            metrics_folder=str(folder),
        )
    )


def raise_descriptor_limit() -> None:
    """Take as many file descriptors as we may have: each connection needs one, and 1024 are soon gone."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def make_folders(settings: Settings) -> None:
    """Make data and run directory; they belong to the user we become."""
    owner = pwd.getpwnam(settings.process.user) if settings.process.user else None
    for folder in (Path(settings.process.data_directory), Path(settings.process.run_directory)):
        try:
            folder.mkdir(mode=0o750, parents=True, exist_ok=True)
            if owner is not None and os.geteuid() == 0:
                os.chown(folder, owner.pw_uid, owner.pw_gid)
        except OSError as error:
            raise OSError(error.errno, f"cannot make {folder}: {error.strerror}") from error


def become_user(name: str | None) -> None:
    """Give up root for *name*, groups included."""
    if name is None:
        return
    user = pwd.getpwnam(name)
    if os.geteuid() == user.pw_uid:
        return
    try:
        os.initgroups(user.pw_name, user.pw_gid)
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
    except OSError as error:
        raise OSError(error.errno, f"cannot become user {name}: {error.strerror}") from error


def check_certificates(settings: Settings) -> None:
    """
    Read every certificate and key as the user we are now.

    Raises:
        ConfigError: One cannot be used.
    """
    from mtaq.net.certificates import tls_options

    for port in (*settings.listen.smtp_port, *settings.listen.smtp_secure_port):
        tls = tls_options(settings.receive(port))
        if tls is not None:
            try:
                tls.load()
            except ConfigError as error:
                raise ConfigError(str(error), key=f"smtp-certificate@{port}") from error


@contextlib.contextmanager
def pid_file(path: Path) -> Iterator[None]:
    """
    Hold *path*, with our process id, while the block lasts.

    Raises:
        OSError: Another living process holds it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OSError(error.errno, f"another instance runs: it holds {path}") from error
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
        path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def running_instances(run_directory: Path) -> list[int]:
    """Return the process ids of the supervisors that live in *run_directory*."""
    found = []
    for verb in ROLES:
        with contextlib.suppress(FileNotFoundError, ValueError), (run_directory / f"{verb}.pid").open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                found.append(int(file.read()))
    return found


def _reload(args: argparse.Namespace) -> int:
    settings = load_or_exit(args)  # a broken file is told here, and changes nothing
    try:
        return _send_reload(Path(settings.process.run_directory))
    except PermissionError as error:
        print(f"mtaq: {exits.explain(error)}", file=sys.stderr)
        return exits.NO_PERMISSION


def _send_reload(run_directory: Path) -> int:
    pids = running_instances(run_directory)
    if not pids:
        print(f"mtaq: nothing runs in {run_directory}", file=sys.stderr)
        return exits.UNAVAILABLE
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGHUP)
    return exits.OK


def _health(args: argparse.Namespace) -> int:
    settings = load_or_exit(args)
    address = settings.process.metrics_port
    if address is None:
        print("mtaq: health asks metrics-port, which is not set", file=sys.stderr)
        return exits.CONFIG
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)  # noqa: S104 - compared, not bound
    url = f"http://{f'[{host}]' if ':' in host else host}:{address.port}/ready"
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            report = json.load(answer)
    except urllib.error.HTTPError as error:
        print(error.read().decode("utf-8", "replace"))
        return exits.UNAVAILABLE
    except (OSError, ValueError) as error:
        print(f"mtaq: no answer from {url}: {error}", file=sys.stderr)
        return exits.UNAVAILABLE
    print(json.dumps(report))
    return exits.OK
