"""Contradictions between settings and this system: files, folders and the user that is to use them.

Files are looked at, nothing else is opened. Started by root for another user, it is that user who must be able to.
"""

from __future__ import annotations

import os
import pwd
import ssl
import subprocess

from mtaq.config.draft import Draft
from mtaq.config.errors import Findings
from mtaq.config.hooks import Executable
from mtaq.config.logins import FileLogin, Login, ProgramLogin, SystemLogin

SHADOW = "/etc/shadow"
"""Where PAM looks for the passwords of system accounts."""


def check_certificates(draft: Draft, findings: Findings) -> None:
    """Certificate and key come together, can be read and fit; a secure port has them."""
    for port, options in draft.open_ports():
        certificate, key = options.smtp_certificate, options.smtp_key
        if certificate and not key:
            draft.blame(findings, "smtp-key is missing; expected both or neither", "smtp-certificate", port=port)
        elif key and not certificate:
            draft.blame(findings, "smtp-certificate is missing; expected both or neither", "smtp-key", port=port)
        elif not certificate and port in draft.settings.listen.smtp_secure_port:
            problem = f"port {port} has no certificate; expected smtp-certificate and smtp-key"
            draft.blame(findings, problem, "smtp-secure-port")
        elif certificate and key:
            _check_pair(draft, findings, certificate, key, port)


def _check_pair(draft: Draft, findings: Findings, certificate: str, key: str, port: int) -> None:
    readable = [_check_file(draft, findings, name, path, port) for name, path in
                (("smtp-certificate", certificate), ("smtp-key", key))]  # fmt: skip
    if all(readable):
        try:
            # The pass phrase is given, empty, because OpenSSL would ask for one on the terminal.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
        except (ssl.SSLError, ValueError, OSError):
            problem = "no usable pair with its smtp-key; expected a certificate in PEM and its key without pass phrase"
            draft.blame(findings, problem, "smtp-certificate", port=port)


def _check_file(draft: Draft, findings: Findings, key: str, path: str, port: int) -> bool:
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        draft.blame(findings, f"{path} cannot be read: {error.strerror}; expected a PEM file", key, port=port)
        return False
    user = draft.settings.process.user
    if user and os.geteuid() == 0 and not _user_can_read(user, path):
        draft.blame(findings, f"{path} cannot be read by user {user}; expected a file that it can read", key, port=port)
        return False
    return True


def _user_can_read(user: str, path: str) -> bool:
    return _can(user, "-r", path)


_ACCESS = {"-r": os.R_OK, "-w": os.W_OK, "-x": os.X_OK}


def _can(user: str | None, test: str, path: str) -> bool:
    """Ask the kernel, as that user: permissions of every folder above and access lists count as well."""
    if not user or os.geteuid() != 0:
        return os.access(path, _ACCESS[test])
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        return True  # told by check_user
    groups = os.getgrouplist(user, entry.pw_gid)
    asked = subprocess.run(
        ["/usr/bin/test", test, path], user=entry.pw_uid, group=entry.pw_gid, extra_groups=groups, check=False
    )
    return asked.returncode == 0


def check_client_authorities(draft: Draft, findings: Findings) -> None:
    """Certificate authorities of clients can be read, and stand on ports that have a certificate themselves."""
    for port, options in draft.open_ports():
        path = options.smtp_tls_client_ca
        if path is None:
            continue
        if not options.smtp_certificate:
            problem = f"port {port} has no certificate, so no client shows one; expected smtp-certificate as well"
            draft.blame(findings, problem, "smtp-tls-client-ca", port=port)
        if _check_file(draft, findings, "smtp-tls-client-ca", path, port):
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(path)
            except OSError:
                problem = f"no certificate authority in {path}; expected certificates in PEM"
                draft.blame(findings, problem, "smtp-tls-client-ca", port=port)


def check_logins(draft: Draft, findings: Findings) -> None:
    """Logins are taken under TLS only; the files that they come from are there for the user that asks."""
    for port, options in draft.open_ports():
        if options.smtp_auth and not options.smtp_certificate and not options.smtp_key:
            problem = f"port {port} has no certificate, and nobody logs in without TLS; expected smtp-certificate too"
            draft.blame(findings, problem, "smtp-auth", port=port)
        for login in options.smtp_auth:
            problem = _unusable(login, draft.settings.process.user)
            if problem:
                draft.blame(findings, problem, "smtp-auth", port=port)


def _unusable(login: Login, user: str | None) -> str:
    """Return what keeps *user* from the file that a login comes from; empty when nothing does."""
    who = f" by user {user}" if user else ""
    match login:
        case FileLogin(path) if not (os.path.isfile(path) and _can(user, "-r", path)):
            return f"{path} cannot be read{who}; expected a file of user:hash"
        case ProgramLogin(path) if not (os.path.isfile(path) and _can(user, "-x", path)):
            return f"{path} cannot be run{who}; expected a program"
        case SystemLogin() if os.path.exists(SHADOW) and not _can(user, "-r", SHADOW):
            return f"users:// needs {SHADOW}, which cannot be read{who}; expected membership in its group"
        case _:
            return ""


def check_hooks(draft: Draft, findings: Findings) -> None:
    """Programs that hooks and pipelines name are there, and the user may run them."""
    user = draft.settings.process.user
    for port, options in draft.open_ports():
        named = [("smtp-hook", options.smtp_hook), *(("smtp-pipeline", step) for step in options.smtp_pipeline)]
        for key, target in named:
            if isinstance(target, Executable) and not (os.path.isfile(target.path) and _can(user, "-x", target.path)):
                who = f" by user {user}" if user else ""
                draft.blame(findings, f"{target.path} cannot be run{who}; expected a program", key, port=port)


def check_spool(draft: Draft, findings: Findings) -> None:
    """The watched folder and the one for failures are two folders, and files in both can be moved."""
    spool = draft.settings.spool
    for key, path in (("spool-directory", spool.spool_directory), ("spool-fail-directory", spool.spool_fail_directory)):
        if path is None:
            continue
        if not os.path.isdir(path):
            draft.blame(findings, f"{path} is not a folder; expected one that exists", key)
        elif not _can(draft.settings.process.user, "-w", path):
            draft.blame(findings, f"{path} cannot be written to; expected a folder that belongs to the user", key)
    directory, failed = spool.spool_directory, spool.spool_fail_directory
    if failed is not None and directory is None:
        draft.blame(findings, "spool-directory is missing; expected both or neither", "spool-fail-directory")
    elif failed is not None and directory is not None and os.path.realpath(failed) == os.path.realpath(directory):
        draft.blame(findings, "is the watched folder itself; expected another folder", "spool-fail-directory")


def check_user(draft: Draft, findings: Findings) -> None:
    """The user exists."""
    user = draft.settings.process.user
    if user is not None:
        try:
            pwd.getpwnam(user)
        except KeyError:
            draft.blame(findings, f"no user {user!r} on this system; expected one that exists", "user")
