"""The examples of docs/guide/{local-addresses,access,sources,control,operating,tls}.md, run as they stand there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]


@pytest.mark.peers
@pytest.mark.parametrize("page", ["local-addresses", "access", "sources", "control", "operating", "tls"])
def test_examples(page: str, tmp_path: Path) -> None:
    """Each command of the page ends with 0, in the order written, and the last one prints what stands below."""
    if shutil.which("jq") is None:
        pytest.skip("install jq (Debian package) to run this")
    text = (PROJECT / f"docs/guide/{page}.md").read_text("utf-8")
    examples = re.findall(r"^```sh\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?", text, re.MULTILINE | re.DOTALL)
    assert examples
    for commands, printed in examples:
        *before, last = commands.splitlines()
        for command in before:
            run(command, tmp_path)
        shown = run(last, tmp_path)
        if printed:
            assert comparable(shown) == comparable(printed)


def run(command: str, folder: Path) -> str:
    """Run one line in a shell that knows ``mtaq``, on a database of the test's own; return what it prints."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MTAQ_")} | {
        "MTAQ_DATA_DIRECTORY": str(folder),
        "MTAQ_RUN_DIRECTORY": str(folder / "run"),
        "MTAQ_RABBITMQ_ADDRESS": f"embedded://{folder}/queue",
    }
    script = f'set -o pipefail; mtaq() {{ "{sys.executable}" -m mtaq "$@"; }}; {command}'
    done = subprocess.run(
        ["bash", "-c", script], env=environment, cwd=PROJECT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def comparable(text: str) -> str:
    """Times and days are not the page's, and how wide a column is does not matter."""
    without_times = re.sub(r"\d{4}-\d\d-\d\d(?: \d\d:\d\d:\d\d)?", "WHEN", text)
    return re.sub(" {2,}", "  ", without_times).strip()
