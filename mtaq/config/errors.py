"""All mistakes of one configuration together, because an operator mends them in one go.

Collects only; what a mistake is, the reader and the checks decide.
"""

from __future__ import annotations

from collections.abc import Sequence

from mtaq.model.errors import ConfigError, MtaqError


class ConfigErrors(MtaqError):
    """A configuration that must not be used.

    Attributes:
        errors: Every mistake found, in the order of their sources and lines; never empty. ``str()`` is one per line.
    """

    def __init__(self, errors: Sequence[ConfigError]) -> None:
        self.errors = tuple(errors)
        super().__init__("\n".join(str(error) for error in self.errors))


class Findings:
    """What reading a configuration brought to light so far.

    Attributes:
        errors: Mistakes; one is enough to refuse the configuration.
        warnings: What works but should be changed, as ``where: key: text``.
    """

    def __init__(self) -> None:
        self.errors: list[ConfigError] = []
        self.warnings: list[str] = []

    def error(self, problem: str, *, source: str, line: int | None = None, key: str | None = None) -> None:
        """Note a mistake; *problem* says what is wrong and what is expected, never a secret."""
        self.errors.append(ConfigError(problem, source=source, line=line, key=key))

    def warn(self, problem: str, *, source: str, line: int | None = None, key: str | None = None) -> None:
        """Note something that is accepted; the same words twice are noted once."""
        text = str(ConfigError(problem, source=source, line=line, key=key))
        if text not in self.warnings:
            self.warnings.append(text)
