"""Chains against TLSA records."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier
from hypothesis import given
from hypothesis import strategies as st

from mtaq.deliver.certificate import public_key_info
from mtaq.deliver.certificate_chain import MAX_CHAIN
from mtaq.deliver.dane import DANE_EE, DANE_TA, Tlsa, objection, usable
from tests.support.chains import NOW, Issued, issue

MX = "mx.test"
WRONG = Tlsa(DANE_EE, 1, 1, bytes(32))


@pytest.fixture(scope="module")
def root() -> Issued:
    """A root of trust."""
    return issue("root", authority=True)


@pytest.fixture(scope="module")
def middle(root: Issued) -> Issued:
    """An authority below it."""
    return issue("middle", root, authority=True)


@pytest.fixture(scope="module")
def host(middle: Issued) -> Issued:
    """A host that the authority speaks for."""
    return issue(MX, middle, dns=[MX])


def kind(chain: list[bytes], *records: Tlsa, names: tuple[str, ...] = (MX,)) -> str | None:
    """What is objected."""
    found = objection(chain, usable(records), names, now=NOW)
    return found.kind if found is not None else None


@pytest.mark.parametrize("matching", [0, 1, 2])
@pytest.mark.parametrize("selector", [0, 1])
def test_every_form_of_record_matches_the_host_itself(host, selector, matching):
    """Certificate or key, whole or digest; another host does not match, and need not send a chain."""
    record = host.tlsa(DANE_EE, selector, matching)
    assert kind(host.chain, record) is None
    assert kind([host.der], record) is None
    assert kind(issue(MX, dns=[MX]).chain, record) == "validation-failure"


@pytest.mark.parametrize("matching", [0, 1, 2])
@pytest.mark.parametrize("selector", [0, 1])
def test_every_form_of_record_matches_an_authority(root, middle, host, selector, matching):
    """The root or one between; another authority, though its name is the same, does not match."""
    assert kind(host.chain, root.tlsa(DANE_TA, selector, matching)) is None
    assert kind(host.chain, middle.tlsa(DANE_TA, selector, matching)) is None
    assert kind(host.chain, issue("root", authority=True).tlsa(DANE_TA, selector, matching)) == "validation-failure"


@pytest.mark.parametrize("selector", [0, 1])
def test_an_authority_that_is_published_whole_need_not_be_sent(middle, host, selector):
    """Certificate or key; a digest of what was not sent says nothing."""
    assert kind([host.der], middle.tlsa(DANE_TA, selector, 0)) is None
    assert kind([host.der], middle.tlsa(DANE_TA, selector, 1)) == "validation-failure"


def test_names_count_below_an_authority_alone(root, middle):
    """A record of the certificate itself is about the host, whatever it calls itself and however old it is."""
    other = issue("other.test", middle, dns=["other.test"], expired=True)
    assert kind(other.chain, other.tlsa(DANE_EE)) is None
    other = issue("other.test", middle, dns=["other.test"])
    assert kind(other.chain, root.tlsa(DANE_TA)) == "certificate-host-mismatch"
    assert kind(other.chain, root.tlsa(DANE_TA), names=(MX, "OTHER.test")) is None


@pytest.mark.parametrize(
    ("dns", "matches"),
    [
        ("*.a.test", True), ("MX.a.Test", True), ("*", False), ("*.test", False), ("m*.a.test", False),
        ("*.mx.a.test", False), ("mx.*.test", False),
    ],
)  # fmt: skip
def test_a_wildcard_stands_for_the_first_label(root, dns, matches):
    """Whole, for one label, and not for a whole top level."""
    made = issue("x", root, dns=[dns])
    assert (kind(made.chain, root.tlsa(DANE_TA), names=("mx.a.test",)) is None) is matches
    if dns == "*.test":
        assert kind(made.chain, root.tlsa(DANE_TA)) == "certificate-host-mismatch"


def test_the_common_name_counts_where_there_is_no_other(root):
    """RFC 7672 §3.2.3."""
    assert kind(issue(MX, root).chain, root.tlsa(DANE_TA)) is None
    assert kind(issue(MX, root, dns=["other.test"]).chain, root.tlsa(DANE_TA)) == "certificate-host-mismatch"


def test_what_is_not_in_date_is_not_trusted(root):
    """Neither a host nor an authority between."""
    assert kind(issue(MX, root, dns=[MX], expired=True).chain, root.tlsa(DANE_TA)) == "certificate-expired"
    old = issue("old", root, authority=True, expired=True)
    assert kind(issue(MX, old, dns=[MX]).chain, root.tlsa(DANE_TA)) == "certificate-expired"
    ahead = objection(issue(MX, root, dns=[MX]).chain, [root.tlsa(DANE_TA)], [MX], now=NOW - timedelta(days=60))
    assert ahead is not None
    assert ahead.kind == "certificate-expired"


def test_only_an_authority_signs(root):
    """Another host's certificate is none, nor one whose use is another, nor one too far down."""
    neighbour = issue("neighbour.test", root, dns=["neighbour.test"])
    assert kind(issue(MX, neighbour, dns=[MX]).chain, root.tlsa(DANE_TA)) == "validation-failure"
    usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
    signer = issue("signer", root, authority=True, extensions=[(usage, True)])
    assert kind(issue(MX, signer, dns=[MX]).chain, root.tlsa(DANE_TA)) == "validation-failure"
    short = issue("short", root, authority=True, path_length=0)
    below = issue("below", short, authority=True)
    assert kind(issue(MX, short, dns=[MX]).chain, root.tlsa(DANE_TA)) is None
    assert kind(issue(MX, below, dns=[MX]).chain, root.tlsa(DANE_TA)) == "validation-failure"


def test_a_host_is_not_its_own_authority():
    """A certificate signed by itself is described by the other kind of record."""
    alone = issue(MX, dns=[MX], authority=True)
    assert kind(alone.chain, alone.tlsa(DANE_TA)) == "validation-failure"


def test_a_certificate_for_something_else_does_not_serve(root):
    """Its extended use is of clients, or it has a critical extension that nobody knows."""
    client = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    server = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    odd = x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    for extension, critical, expected in (
        (client, False, "validation-failure"),
        (server, True, None),
        (odd, True, "validation-failure"),
        (odd, False, None),
    ):
        made = issue(MX, root, dns=[MX], extensions=[(extension, critical)])
        assert kind(made.chain, root.tlsa(DANE_TA)) == expected


@pytest.mark.parametrize(
    ("permitted", "excluded", "expected"),
    [
        (["test"], None, None),
        (["other"], None, "certificate-not-trusted"),
        (None, ["mx.test"], "certificate-not-trusted"),
        (None, ["x.test"], None),
    ],
)
def test_an_authority_may_be_for_some_names_alone(root, permitted, excluded, expected):
    """RFC 5280 §4.2.1.10."""
    trees = [[x509.DNSName(each) for each in names] if names else None for names in (permitted, excluded)]
    limited = issue("limited", root, authority=True, extensions=[(x509.NameConstraints(*trees), True)])
    assert kind(issue(MX, limited, dns=[MX]).chain, root.tlsa(DANE_TA)) == expected


@pytest.mark.parametrize("make", [ed25519.Ed25519PrivateKey.generate, lambda: rsa.generate_private_key(65537, 2048)])
def test_authorities_have_keys_of_several_kinds(make):
    """Ed25519 and RSA beside the curve of the other tests; Ed25519 needs no hash of its own."""
    authority = issue("authority", authority=True, key=make())
    made = issue(MX, authority, dns=[MX])
    assert kind(made.chain, authority.tlsa(DANE_TA)) is None
    assert kind([made.der], authority.tlsa(DANE_TA, 1, 0)) is None


def test_several_records_are_alternatives(host):
    """Old and new beside each other; unusable ones are passed over."""
    assert kind(host.chain, WRONG, host.tlsa(DANE_EE)) is None
    assert kind(host.chain, WRONG, Tlsa(0, 0, 1, bytes(32))) == "validation-failure"


def test_a_stronger_digest_takes_the_place_of_a_weaker_one(host):
    """RFC 7671 §9: SHA-256 does not count where SHA-512 stands for the same usage and selector."""
    strong_and_wrong = Tlsa(DANE_EE, 1, 2, bytes(64))
    assert kind(host.chain, host.tlsa(DANE_EE, 1, 1), strong_and_wrong) == "validation-failure"
    assert kind(host.chain, host.tlsa(DANE_EE, 0, 1), strong_and_wrong) is None
    assert kind(host.chain, host.tlsa(DANE_EE, 1, 0), strong_and_wrong) is None


@pytest.mark.parametrize(
    "record",
    [Tlsa(0, 1, 1, bytes(32)), Tlsa(1, 1, 1, bytes(32)), Tlsa(3, 2, 1, bytes(32)), Tlsa(3, 1, 3, bytes(32)),
     Tlsa(3, 1, 1, bytes(31)), Tlsa(3, 1, 2, bytes(32)), Tlsa(3, 0, 0, b"nonsense"), Tlsa(2, 1, 0, b"")],
)  # fmt: skip
def test_a_record_that_says_nothing_is_not_usable(record):
    """PKIX usages, unknown numbers, digests of another length, and what is no certificate or key."""
    assert usable([record]) == ()


def test_a_chain_in_circles_ends(host):
    """Certificates that all could have signed each other cost no more than a few dozen verifications."""
    key = issue("loop").key
    first = issue("loop", authority=True, key=key)
    ring = [issue("loop", first, authority=True, key=key) for _ in range(2 * MAX_CHAIN)]
    leaf = issue(MX, first, dns=[MX])
    assert kind([leaf.der, *(each.der for each in ring)], host.tlsa(DANE_TA)) == "validation-failure"


def test_without_a_chain_nothing_matches(host):
    """Not even an empty certificate."""
    assert kind([], host.tlsa(DANE_EE)) == "validation-failure"
    assert kind([b""], host.tlsa(DANE_EE)) == "validation-failure"
    assert kind([b""], host.tlsa(DANE_TA)) == "validation-failure"


def test_the_key_is_read_as_it_stands(host):
    """What the digest of a record is made of."""
    assert public_key_info(host.der) == host.key_info


@given(st.lists(st.binary(max_size=60), max_size=3))
def test_nonsense_matches_nothing(chain):
    """Any octets are objected to."""
    assert objection(chain, [WRONG, Tlsa(DANE_TA, 0, 1, bytes(32))], [MX], now=NOW) is not None
