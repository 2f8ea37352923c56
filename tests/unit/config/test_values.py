"""Each value type: what operators write, what it means, what is refused."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaq.config import values
from mtaq.config.table import OPTIONS
from mtaq.config.values import DeliveryTimeouts


@pytest.mark.parametrize(
    ("parser", "text", "value"),
    [
        (values.boolean, "true", True),
        (values.boolean, "YES", True),
        (values.boolean, "0", False),
        (values.integer(1, 10), "10", 10),
        (values.byte_count, "1", 1),
        (values.byte_count, "2KB", 2048),
        (values.byte_count, "100 mb", 100 * 1024 * 1024),
        (values.byte_count, "1GB", 1024**3),
        (values.seconds, "300", 300),
        (values.seconds, "10m", 600),
        (values.seconds, "2h", 7200),
        (values.seconds, "1d", 86400),
        (values.seconds, "1.5m", 90),
        (values.seconds, "60.0", 60),
        (values.exact_seconds, "0.5", 0.5),
        (values.seconds_or_zero, "0", 0),
        (values.seconds_or_zero, "60", 60),
        (values.seconds_list, "600, 10m,1h", (600, 600, 3600)),
        (values.choice("strict", "loose"), "Loose", "loose"),
        (values.optional(values.seconds), "", None),
        (values.queue_name, "out box", "out box"),
        (values.server_id, "relay-1", "relay-1"),
        (values.log_targets, "stderr, /var/log/mtaq.log,stderr", ("stderr", "/var/log/mtaq.log")),
        (values.log_targets, "", ()),
        (values.delivery_timeouts, "", DeliveryTimeouts()),
        (values.delivery_timeouts, "connect=5, dot=10m", DeliveryTimeouts(connect=5, dot=600)),
    ],
)
def test_accepts(parser, text, value):
    """A value written in any documented form is understood."""
    assert parser(text) == value


@pytest.mark.parametrize(
    ("parser", "text"),
    [
        (values.boolean, "on"),
        (values.boolean, ""),
        (values.integer(1, 10), "0"),
        (values.integer(1, 10), "11"),
        (values.integer(1, 10), "+5"),
        (values.integer(1, 10), "1_0"),
        (values.integer(1, 10), "٣"),
        (values.byte_count, "0"),
        (values.byte_count, "1.5MB"),
        (values.byte_count, "5TB"),
        (values.byte_count, "-1"),
        (values.seconds, "0"),
        (values.seconds, "0.5"),
        (values.seconds, "-5"),
        (values.seconds, "10 minutes"),
        (values.seconds, "1h30m"),
        (values.seconds, "11111d"),
        (values.seconds, "nan"),
        (values.exact_seconds, "1e3"),
        (values.seconds_list, ","),
        (values.choice("strict", "loose"), "lax"),
        (values.absolute_path, "run/mtaq"),
        (values.queue_name, ""),
        (values.queue_name, "amq.direct"),
        (values.queue_name, "q" * 256),
        (values.server_id, "relay.example.com"),
        (values.server_id, "x" * 32),
        (values.server_id, ""),
        (values.log_targets, "stdrr"),
        (values.delivery_timeouts, "conect=5"),
        (values.delivery_timeouts, "connect"),
        (values.delivery_timeouts, "connect=0"),
        (values.delivery_timeouts, "connect=5,connect=6"),
    ],
)
def test_refuses_and_says_what_is_expected(parser, text):
    """A value of the wrong form is refused with words that say what is expected."""
    with pytest.raises(ValueError, match="expected"):
        parser(text)


@pytest.mark.parametrize("row", OPTIONS.values(), ids=lambda row: row.key)
def test_default_and_example_are_values_themselves(row):
    """What the documents show as default or example is understood by the option's own parser."""
    row.parser(row.default_text)
    if row.example:
        row.parser(row.example)


@pytest.mark.parametrize("row", OPTIONS.values(), ids=lambda row: row.key)
@given(text=st.text(max_size=40))
def test_any_text_is_a_value_or_refused(row, text):
    """No text whatsoever makes a parser fail in another way than by refusing it."""
    with suppress(ValueError):
        hash(row.parser(text))
