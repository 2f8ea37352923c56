"""The control socket of an instance: a question in JSON, one line, and its answer, one line; then it is over.

A socket of the file system in ``run-directory``, for its owner (and root) alone. Whoever asks is bounded in size, time
and number; what is asked is the answerer's to judge. A stale socket of a dead instance is replaced: the caller holds
the instance's pid file.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

#: Longest question and answer.
QUESTION_BYTES = 64 * 1024
ANSWER_BYTES = 64 * 1024 * 1024
TIMEOUT_S = 10.0
MOST_AT_ONCE = 16

Answer = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


class ControlSocket:
    """Answers questions until closed."""

    def __init__(self, path: Path, answer: Answer) -> None:
        self._path = path
        self._answer = answer
        self._server: asyncio.Server | None = None
        self._open = 0

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: The socket cannot be made.
        """
        self._path.unlink(missing_ok=True)
        before = os.umask(0o177)  # nobody else may connect, from the first moment on
        try:
            with _short(self._path) as path:
                self._server = await asyncio.start_unix_server(self._serve, path=path, limit=QUESTION_BYTES)
        finally:
            os.umask(before)

    async def close(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            async with asyncio.timeout(TIMEOUT_S):
                writer.write(await self._reply(reader) + b"\n")
                await writer.drain()
        except (OSError, TimeoutError):  # whoever asked is gone, or too slow
            pass
        finally:
            self._open -= 1
            writer.close()

    async def _reply(self, reader: asyncio.StreamReader) -> bytes:
        if self._open > MOST_AT_ONCE:
            return _encode({"error": "too many questions at once"})
        try:
            question = json.loads(await reader.readline())
        except ValueError:  # no JSON, or a line that is too long
            return _encode({"error": "no question in JSON"})
        if not isinstance(question, dict):
            return _encode({"error": "no question in JSON"})
        return _encode(await self._answer(question))


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """Name *path* in less than the 108 bytes that the address of a socket may have, however deep it lies."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _encode(answer: dict[str, Any]) -> bytes:
    return json.dumps(answer, ensure_ascii=False).encode()


async def ask(path: Path, **question: Any) -> dict[str, Any]:
    """
    Ask the instance whose socket is *path*.

    Raises:
        OSError: Nobody listens there, or gives no answer.
    """
    try:
        async with asyncio.timeout(TIMEOUT_S):
            with _short(path) as short:
                reader, writer = await asyncio.open_unix_connection(short, limit=ANSWER_BYTES)
            try:
                writer.write(json.dumps(question).encode() + b"\n")
                line = await reader.readline()
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except TimeoutError:
        raise OSError(f"{path}: no answer within {TIMEOUT_S:g} s") from None
    try:
        answer = json.loads(line)
    except ValueError:
        raise OSError(f"{path}: the answer is no JSON") from None
    if not isinstance(answer, dict):
        raise OSError(f"{path}: the answer is no object")
    return answer
