"""Value types that name the operator's own code: ``python://``, ``exec://``, ``http(s)://``, and the built-in steps.

Syntax only: nothing is imported, started or asked; that is ``mtaq.hooks``'s work. A parser raises ``ValueError`` saying
what is expected and never repeats the value, which may hold a password.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, get_args
from urllib.parse import unquote, urlsplit

from mtaq.config.values import choice, exact_seconds, split

#: RFC 5321 §4.5.3.2.2: clients wait five minutes for the answer to MAIL, and likewise to RCPT.
LONGEST_TIMEOUT_S = 300

SanitizeLevel = Literal["strict", "basic", "relaxed"]

_level: Callable[[str], SanitizeLevel] = choice(*get_args(SanitizeLevel))
_FORMS = "expected python://module:object, exec:///path or http(s)://host/path"
_STEPS = f"{_FORMS}, sanitize-html, sanitize-html=strict|basic|relaxed or parse-full"


@dataclass(frozen=True, slots=True)
class PythonCode:
    """``python://module:object``.

    Attributes:
        module: Dotted name of the module.
        name: The object in it; dots lead further in.
    """

    module: str
    name: str

    @property
    def label(self) -> str:
        """How logs and metrics call it."""
        return f"python://{self.module}:{self.name}"


@dataclass(frozen=True, slots=True)
class Executable:
    """``exec:///path``: *path* is absolute."""

    path: str

    @property
    def label(self) -> str:
        """How logs and metrics call it."""
        return f"exec://{self.path}"


@dataclass(frozen=True, slots=True)
class WebService:
    """``http(s)://``: *url* as written; it may hold a password, and is never printed."""

    url: str = field(repr=False)

    @property
    def label(self) -> str:
        """How logs and metrics call it: without its secrets."""
        return mask_hooks(self.url)


@dataclass(frozen=True, slots=True)
class SanitizeHtml:
    """The built-in step that takes out of HTML what could act."""

    level: SanitizeLevel

    @property
    def label(self) -> str:
        """How logs and metrics call it."""
        return f"sanitize-html={self.level}"


@dataclass(frozen=True, slots=True)
class ParseFull:
    """The built-in step that describes texts and attachments in ``extracted``."""

    @property
    def label(self) -> str:
        """How logs and metrics call it."""
        return "parse-full"


HookTarget = PythonCode | Executable | WebService
Step = HookTarget | SanitizeHtml | ParseFull


def hook(text: str) -> HookTarget:
    """One URL of the operator's own code."""
    scheme, slashes, rest = text.partition("://")
    if not slashes or scheme not in _PARSERS:
        raise ValueError(f"not a hook; {_FORMS}")
    return _PARSERS[scheme](text, rest)


def pipeline(text: str) -> tuple[Step, ...]:
    """Steps in the order they run, separated by ``,``; a comma inside of one is written ``%2C``."""
    return tuple(_step(item) for item in split(text, ","))


def _step(text: str) -> Step:
    name, equals, level = (part.strip() for part in text.partition("="))
    if name == "sanitize-html":
        return SanitizeHtml(_level(level) if equals else "basic")
    if text == "parse-full":
        return ParseFull()
    try:
        return hook(text)
    except ValueError as error:
        raise ValueError(str(error).replace(_FORMS, _STEPS)) from None


def _python(_text: str, rest: str) -> PythonCode:
    module, colon, name = rest.partition(":")
    if not colon or not all(part.isidentifier() for part in (*module.split("."), *name.split("."))):
        raise ValueError("not the name of an object in a module; expected python://module:object")
    return PythonCode(module, name)


def _executable(text: str, rest: str) -> Executable:
    path = unquote(rest, errors="surrogateescape")
    if not rest.startswith("/") or rest.endswith("/") or re.search("[?#]", rest) or not path.isprintable():
        raise ValueError("not the path of a program; expected exec:///path (elsewhere, % is %25, ? is %3F, # is %23)")
    return Executable(path)


def _web_service(text: str, _rest: str) -> WebService:
    try:
        parts = urlsplit(text)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not re.fullmatch(r"[!-~]+", text) or "#" in text:
        raise ValueError("not a URL in ASCII; expected http(s)://user:password@host:port/path (elsewhere, @ is %40)")
    return WebService(text)


_PARSERS: dict[str, Callable[[str, str], HookTarget]] = {
    "python": _python,
    "exec": _executable,
    "http": _web_service,
    "https": _web_service,
}


def hook_timeout(text: str) -> float:
    """As ``exact_seconds``, and not longer than a client waits."""
    timeout_s = exact_seconds(text)
    if timeout_s > LONGEST_TIMEOUT_S:
        raise ValueError(f"{text!r} is longer than clients wait; expected at most {LONGEST_TIMEOUT_S} seconds")
    return timeout_s


def mask_hooks(text: str) -> str:
    """Hide passwords and queries of web services in a list of hooks or steps; what has no known form is hidden."""
    return ",".join(_masked(item) for item in split(text, ","))


def _masked(text: str) -> str:
    if re.fullmatch(r"(python|exec)://[^@?]*|[a-z-]+(=[a-z]*)?", text):
        return text
    scheme, slashes, rest = text.partition("://")
    if not slashes or scheme not in ("http", "https"):
        return "***"
    before, question, _ = rest.partition("?")
    credentials, at, place = before.rpartition("@")
    user, colon, _ = credentials.partition(":")
    return f"{scheme}://{user}{colon and ':***'}{at}{place}{question and '?***'}"
