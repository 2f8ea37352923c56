"""What is passed on of a spam filter's judgement."""

from __future__ import annotations

import pytest

from mtaq.mailauth.authres import compose
from mtaq.mailauth.spam import SpamResult


def test_authentication_results() -> None:
    """Word and numbers stand under a method of our own; the rules do not."""
    result = SpamResult.scored("spam", "rspamd", score=7.1004, threshold=5, rules=["A"], action="reject")
    assert compose("mx.test", result.verdicts()) == (
        b"Authentication-Results: mx.test;\r\n x-spam=spam policy.score=7.1 policy.threshold=5\r\n"
    )
    silent = SpamResult("temperror", "rspamd", reason="the filter did not answer")
    assert b'x-spam=temperror reason="the filter did not answer"' in compose("mx.test", silent.verdicts())


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number(number: float) -> None:
    """JSON has no such numbers."""
    with pytest.raises(ValueError, match="no number"):
        SpamResult.scored("ham", "rspamd", score=number, threshold=5, rules=[])
    with pytest.raises(ValueError, match="no number"):
        SpamResult.scored("ham", "rspamd", score=5, threshold=number, rules=[])
