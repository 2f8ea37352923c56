"""One row of the option table, and how a section declares it.

Describes only: the reader, the documents, the example file and ``mtaq config`` all work from these rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Option:
    """Everything there is to know about one key.

    Attributes:
        parser: Turns the operator's text into the value; raises ``ValueError`` with what is expected.
        default: As the operator would write it; a function where the machine decides.
        words: What to print for a default that has no spelling of its own, such as "number of CPUs".
        unit: Unit or list form, for the documents.
        rfc: Where the rule comes from.
        doc: What it does, in whole sentences.
        example: Shown in the example file where it says more than the default.
        per_port: Whether ``key@port`` overrides it for one port.
        secret: Hides what must not be printed; ``None`` when nothing must.
        reload: Whether a running instance takes a new value without a restart.
        aliases: Deprecated spellings.
        obsolete: Why the key has no effect; empty for a key that has one.
        key: Published spelling; from the field's name.
        attribute: The field's name.
    """

    parser: Callable[[str], Any]
    default: str | Callable[[], str]
    words: str = ""
    unit: str = ""
    rfc: str = ""
    doc: str = ""
    example: str = ""
    per_port: bool = False
    secret: Callable[[str], str] | None = None
    reload: bool = False
    aliases: tuple[str, ...] = ()
    obsolete: str = ""
    key: str = ""
    attribute: str = ""

    @property
    def default_text(self) -> str:
        """The default as the operator would write it on this machine."""
        return self.default if isinstance(self.default, str) else self.default()

    @property
    def default_words(self) -> str:
        """The default for the documents: the same on every machine."""
        return self.words or self.default_text or "none"

    def shown(self, text: str) -> str:
        """Return *text*, a value of this option, as it may be printed."""
        return self.secret(text) if self.secret else text


def option(
    parser: Callable[[str], T],
    default: str | Callable[[], str],
    *,
    doc: str,
    words: str = "",
    unit: str = "",
    rfc: str = "",
    example: str = "",
    per_port: bool = False,
    secret: Callable[[str], str] | None = None,
    reload: bool = False,
    aliases: tuple[str, ...] = (),
    obsolete: str = "",
) -> T:
    """Declare an option as a field of a section; see ``Option`` for the arguments."""
    row = Option(
        parser=parser, default=default, doc=doc, words=words, unit=unit, rfc=rfc, example=example, per_port=per_port,
        secret=secret, reload=reload, aliases=aliases, obsolete=obsolete,
    )  # fmt: skip
    return field(default_factory=lambda: parser(row.default_text), metadata={"option": row})


def options_of(section: type[Any]) -> tuple[Option, ...]:
    """Return the rows of a section in the order written."""
    return tuple(
        replace(item.metadata["option"], key=item.name.replace("_", "-"), attribute=item.name)
        for item in fields(section)
    )
