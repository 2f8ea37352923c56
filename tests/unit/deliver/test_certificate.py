"""Who a certificate says it is."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from mtaq.deliver.certificate import read_names


@pytest.fixture(scope="module")
def der() -> bytes:
    authority = trustme.CA(organization_name="Größte CA")
    expires = datetime(2051, 2, 3, 4, 5, 6, tzinfo=UTC)
    issued = authority.issue_cert("mx.test", common_name="mx.test", organization_name="Test Org", not_after=expires)
    return ssl.PEM_cert_to_DER_cert(issued.cert_chain_pems[0].bytes().decode())


def test_names_and_end_are_read(der):
    """Subject, issuer and the last moment it is valid."""
    names = read_names(der)
    assert names is not None
    assert "CN=mx.test" in names.subject
    assert "O=Test Org" in names.subject
    assert "O=Größte CA" in names.issuer
    assert names.not_after == "2051-02-03 04:05:06"


def test_a_cut_certificate_is_not_read(der):
    """Wherever it was cut, within what is read."""
    assert all(read_names(der[:length]) is None for length in range(len(der)))


@given(st.binary(max_size=200))
def test_nonsense_is_not_read(data):
    """Any bytes give names or ``None``."""
    names = read_names(data)
    assert names is None or isinstance(names.subject, str)
