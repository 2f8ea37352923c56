"""From the forms of ``smtp-auth`` to who is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mtaq.config.logins import (
    FileLogin,
    HardcodedLogin,
    HttpLogin,
    LdapLogin,
    Login,
    ProgramLogin,
    RadiusLogin,
    SystemLogin,
)
from mtaq.smtpauth.authenticator import Authenticator
from mtaq.smtpauth.hardcoded import Hardcoded
from mtaq.smtpauth.http_basic import HttpBasic
from mtaq.smtpauth.ldap import LdapBind
from mtaq.smtpauth.pam import SystemUsers
from mtaq.smtpauth.ports import TIMEOUT_S, Backend, Network
from mtaq.smtpauth.program import Program
from mtaq.smtpauth.radius import Radius
from mtaq.smtpauth.users_file import UsersFile


def authenticator_for(
    logins: Sequence[Login],
    *,
    network: Network,
    clock: Callable[[], float],
    on_unavailable: Callable[[str, str], None],
    scram_secret: bytes,
    timeout_s: float = TIMEOUT_S,
) -> Authenticator:
    """
    Return who is asked for the logins of a port. Opens nothing; files and servers are looked at when asked.

    Args:
        logins: The port's ``smtp-auth``.
        clock: Monotonic seconds.
        on_unavailable: Told the form (without secrets) and the reason each time one could not be asked.
        scram_secret: What the sessions disguise unknown users with, so that known ones look the same.
        timeout_s: Longest wait for the answer of each.
    """
    backends = [_backend(login, network, scram_secret) for login in logins]
    return Authenticator(backends, clock=clock, on_unavailable=on_unavailable, timeout_s=timeout_s)


def _backend(login: Login, network: Network, scram_secret: bytes) -> Backend:
    match login:
        case HardcodedLogin(passwords):
            return Hardcoded(dict(passwords), scram_secret=scram_secret)
        case FileLogin(path):
            return UsersFile(path)
        case ProgramLogin(path):
            return Program(path)
        case HttpLogin(url):
            return HttpBasic(url, network.request)
        case LdapLogin(host, port, tls, base_dn):
            return LdapBind(host, port, base_dn, tls=tls, connect=network.connect)
        case RadiusLogin(identifier, secret, host, port):
            return Radius(host, port, identifier, secret, exchange=network.exchange)
        case SystemLogin(patterns):
            return SystemUsers(patterns)
