"""The SMTP dialogs of ``dialogs/`` against the session object."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.dialog import SessionTransport, read_dialog, run_dialog

DIALOGS = sorted((Path(__file__).parent / "dialogs").glob("*.txt"))


@pytest.mark.parametrize("path", DIALOGS, ids=lambda path: path.stem)
@pytest.mark.parametrize("block_bytes", [0, 1, 7])
async def test_dialog(path: Path, block_bytes: int) -> None:
    """A session answers a dialog the same however its octets are cut into blocks."""
    await run_dialog(path, SessionTransport(read_dialog(path).options, block_bytes=block_bytes))


async def test_a_wrong_reply_is_reported_with_its_place(tmp_path: Path) -> None:
    """A dialog that departs fails, and says in which line."""
    path = tmp_path / "wrong.txt"
    path.write_text("S: 220 *\nC: NOOP\nS: 550 *\n")
    with pytest.raises(AssertionError, match=r"wrong\.txt:3: expected 550"):
        await run_dialog(path, SessionTransport(read_dialog(path).options))


async def test_a_session_that_goes_on_is_not_closed(tmp_path: Path) -> None:
    """``<closed>`` fails while the server still listens."""
    path = tmp_path / "open.txt"
    path.write_text("S: 220 *\nS: <closed>\n")
    with pytest.raises(AssertionError):
        await run_dialog(path, SessionTransport(read_dialog(path).options))
