"""Prepares a machine for ./scripts/quickstart and ./scripts/test, with nothing but the standard library.

Safe to run twice: what was installed is noted, and only a changed lock is installed again.
"""

from __future__ import annotations

import glob
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"

#: Debian package → a program or another file it brings; a star stands for a version.
PROGRAMS = {
    "rabbitmq-server": "/usr/sbin/rabbitmq-server",
    "postfix": "/usr/sbin/smtp-sink",
    "swaks": "/usr/bin/swaks",
    "haproxy": "/usr/sbin/haproxy",
    "slapd": "/usr/sbin/slapd",
    "freeradius": "/usr/sbin/freeradius",
    "jq": "/usr/bin/jq",
    "postgresql": "/usr/lib/postgresql/*/bin/postgres",
    "curl": "/usr/bin/curl",
    "msmtp": "/usr/bin/msmtp",
    "openssl": "/usr/bin/openssl",
    "nodejs": "/usr/bin/node",
    "npm": "/usr/bin/npm",
    "node-nodemailer": "/usr/share/nodejs/nodemailer/package.json",
    "libnet-ssleay-perl": "/usr/lib/*/perl5/*/Net/SSLeay.pm",  # TLS of swaks
    "libsasl2-modules": "/usr/lib/*/sasl2/libplain.so*",  # AUTH of Postfix as a client
    "unbound": "/usr/sbin/unbound",
    "spamd": "/usr/sbin/spamd",
    "rspamd": "/usr/bin/rspamd",
    "opendkim": "/usr/sbin/opendkim",
}


def ensure_venv(*locks: str) -> None:
    """Make .venv with the packages of *locks* (names under requirements/) and this project, editable.

    Ends the program with one line for the person when it cannot.
    """
    if sys.version_info < (3, 11):  # noqa: UP036 - this file is what tells people with an older Python
        sys.exit(f"mtaq needs Python 3.11 or newer; this is {sys.version.split()[0]} ({sys.executable})")
    if not PYTHON.exists():
        print("· making .venv", flush=True)
        made = subprocess.run([sys.executable, "-m", "venv", str(VENV)], capture_output=True, text=True)
        if made.returncode:
            sys.exit(f"cannot make .venv: {made.stdout or made.stderr}\n(on Debian: apt-get install python3-venv)")
    files = [ROOT / "requirements" / f"{lock}.txt" for lock in locks]
    wanted = hashlib.sha256(b"".join(file.read_bytes() for file in [*files, ROOT / "pyproject.toml"])).hexdigest()
    stamp = VENV / f"installed-{'-'.join(locks)}"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print(f"· installing {', '.join(file.name for file in files)} into .venv", flush=True)
    _pip("--require-hashes", *(part for file in files for part in ("-r", str(file))))
    _pip("--no-deps", "--no-build-isolation", "--editable", str(ROOT))
    stamp.write_text(wanted)


def reexec(script: str) -> None:
    """Go on in .venv's Python, with the same arguments."""
    if Path(sys.prefix).resolve() != VENV.resolve():
        os.execv(PYTHON, [str(PYTHON), script, *sys.argv[1:]])


def ensure_programs(*packages: str) -> None:
    """Install those Debian packages whose program is missing, when root; else say what is missing and end."""
    missing = [package for package in packages if not glob.glob(PROGRAMS[package])]
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        sys.exit(f"these programs are missing; install them: apt-get install {' '.join(missing)}")
    print(f"· installing {', '.join(missing)}", flush=True)
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    policy = forbid_starts()
    try:
        for command in (["update"], ["install", "-y", "--no-install-recommends", *missing]):
            _run(["apt-get", "-qq", *command], env=quiet)
    finally:
        if policy is not None:
            policy.unlink()


def ensure_peers() -> None:
    """Have npm put what ``requirements/peers`` locks into .venv; ends the program when it cannot."""
    lock, folder = ROOT / "requirements" / "peers", VENV / "peers"
    files = [lock / "package.json", lock / "package-lock.json"]
    wanted = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    stamp = folder / "installed"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print("· installing requirements/peers with npm", flush=True)
    folder.mkdir(exist_ok=True)
    for file in files:
        shutil.copy(file, folder)
    # Nothing of the packages is run while they are installed; their optional ones are plugins that no test uses.
    quiet = ["--no-audit", "--no-fund", "--no-progress", "--loglevel=error"]
    _run(["npm", "ci", "--prefix", str(folder), "--ignore-scripts", "--omit=optional", *quiet], env=os.environ)
    stamp.write_text(wanted)


def forbid_starts() -> Path | None:
    """Have Debian start no service while it installs: ours are private. Return what to remove afterwards."""
    policy = Path("/usr/sbin/policy-rc.d")
    if policy.exists():
        return None
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    return policy


def _pip(*arguments: str) -> None:
    _run([str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments], env=os.environ)


def _run(command: list[str], env: Mapping[str, str]) -> None:
    done = subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(f"failed: {' '.join(command)}\n{done.stdout}")
