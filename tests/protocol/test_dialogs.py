"""The SMTP dialogs of ``dialogs/`` against the session object."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mtaq.smtp import codes, server_session
from tests.support.dialog import SessionTransport, read_dialog, run_dialog

SMTP = Path(server_session.__file__).parent
FILES = sorted((Path(__file__).parent / "dialogs").glob("*.txt"))
DIALOGS = [path for path in FILES if read_dialog(path).only != "direct"]


@pytest.mark.parametrize("path", DIALOGS, ids=lambda path: path.stem)
@pytest.mark.parametrize("block_bytes", [0, 1, 7])
async def test_dialog(path: Path, block_bytes: int) -> None:
    """A session answers a dialog the same however its octets are cut into blocks."""
    dialog = read_dialog(path)
    await run_dialog(path, SessionTransport(dialog.options, block_bytes=block_bytes, secure=dialog.tls == "always"))


async def test_every_verb_and_every_reply_of_a_session_has_its_dialog() -> None:
    """No command and no ready-made reply is left out of ``dialogs/``."""
    said, heard = b"", set()
    for path in DIALOGS:
        dialog = read_dialog(path)
        transport = SessionTransport(dialog.options, secure=dialog.tls == "always")
        await run_dialog(path, transport)
        said += transport.said
        heard |= {step.text.partition(" ")[0].upper().encode() for step in dialog.steps if step.kind == "C:"}
    sources = "".join(
        path.read_text() for path in [*sorted(SMTP.glob("server_*.py")), SMTP / "sasl.py", SMTP / "extensions.py"]
    )
    wanted = set(re.findall(r"\bcodes\.([A-Z][A-Z_0-9]+)", sources))
    assert len(wanted) > 40
    assert [name for name in sorted(wanted) if getattr(codes, name).encode() not in said] == []
    assert server_session._VERBS.keys() - heard == set()


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
