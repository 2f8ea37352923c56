"""The memory of accepted logins."""

from __future__ import annotations

from mtaq.smtpauth.recent import RecentlyAccepted


def test_it_is_bounded():
    """The oldest give way to the newest."""
    recent = RecentlyAccepted(keep_s=60, most=2)
    keys = [recent.key_of(f"user{n}", "x", "ip") for n in range(3)]
    for key in keys:
        recent.add(key, now_s=0)
    assert [recent.holds(key, now_s=1) for key in keys] == [False, True, True]


def test_keys_are_of_no_use_elsewhere():
    """The key of a login differs from process to process and tells nothing of the password."""
    one, other = (RecentlyAccepted(keep_s=60, most=2) for _ in range(2))
    assert one.key_of("ada", "secret", "ip") != other.key_of("ada", "secret", "ip")
    assert one.key_of("ada", "secret", "ip") == one.key_of("ada", "secret", "ip")
    assert one.key_of("a", "bc", "") != one.key_of("ab", "c", "")
