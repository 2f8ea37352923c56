"""Password hashes that other programs made, as ``file://`` meets them."""

from __future__ import annotations

from typing import Any

import pytest

from mtaq.smtpauth import Verdict
from mtaq.smtpauth.crypt import fits
from mtaq.smtpauth.users_file import UsersFile
from tests.conformance.vectors import cases, departs

SUITE = "crypt/hashes"


@pytest.mark.parametrize("case", cases(SUITE), ids=lambda case: case["id"])
def test_hash(case: dict[str, Any]) -> None:
    """The password fits its hash and another does not; or the scheme is a listed departure, and fits nothing."""
    assert fits(case["password"], case["hash"]) is (case["ok"] and not departs(SUITE, case["id"]))


async def test_through_a_file(tmp_path) -> None:
    """In a file of users the hashes do the same."""
    usable = [case for case in cases(SUITE) if ":" not in case["hash"]]
    path = tmp_path / "users"
    path.write_text("".join(f"user{number}:{case['hash']}\n" for number, case in enumerate(usable)))
    form = UsersFile(str(path))
    for number, case in enumerate(usable):
        verdict = await form.check(f"user{number}", case["password"], "192.0.2.1")
        assert (verdict is Verdict.ACCEPTED) is (case["ok"] and not departs(SUITE, case["id"])), case["id"]
    await form.close()
