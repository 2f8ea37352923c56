"""Who may log in: hardcoded passwords, a file, a program, HTTP, LDAP, RADIUS, system accounts."""

from mtaq.model.login import Verdict
from mtaq.smtpauth.authenticator import Authenticator
from mtaq.smtpauth.build import authenticator_for
from mtaq.smtpauth.ports import Network

__all__ = ["Authenticator", "Network", "Verdict", "authenticator_for"]
