"""What a relay has published, read as an operator's script would read it; and configurations out of documents."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtaq.client.sync import connect
from tests.support.instance import ROOT


def received(address: str, count: int, queue: str = "inbox") -> list[dict[str, Any]]:
    """Take *count* messages out of *queue*, waiting for them, and return their JSON."""
    found: list[dict[str, Any]] = []
    with connect(address) as queues:
        for message in queues.consume(queue):
            with message:
                found.append(dict(message))
            if len(found) == count:
                break
    return found


def example(page: str, containing: str, replaced: Mapping[str, object]) -> dict[str, object]:
    """
    Return the options of the block of configuration in docs/guide/*page* that holds *containing*.

    Args:
        page: Name of the page.
        containing: Text of the one block that is meant.
        replaced: What stands in the document → what this machine has in its place.
    """
    text = (ROOT / "docs" / "guide" / page).read_text(encoding="utf-8")
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    [block] = [block for language, block in found if not language and containing in block]
    for old, new in replaced.items():
        assert old in block, f"{old} does not stand in the example"
        block = block.replace(old, str(new))
    pairs = [line.split("#")[0].partition(":") for line in block.splitlines() if ":" in line.split("#")[0]]
    return {key.strip(): value.strip() for key, _, value in pairs}


def write(path: Path, content: str | bytes) -> Path:
    """Write a file the way its writers are told to: complete, and then under its name."""
    beside = path.with_name(f".{path.name}")
    beside.write_bytes(content.encode() if isinstance(content, str) else content)
    beside.rename(path)
    return path
