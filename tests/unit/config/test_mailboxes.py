"""Mailboxes, tags, archives and cipher strings as operators write them."""

from __future__ import annotations

import pytest

from mtaq.config import mailboxes
from mtaq.config.mailboxes import Archive
from mtaq.model.address import Address
from mtaq.smtp.grammar import parse_mailbox


@pytest.mark.parametrize(
    "text", ["ada@example.org", "a.b+c@EXAMPLE.org", "<ada@example.org>", "a@xn--bcher-kva.example", "a@b", "a@1.b"]
)
def test_mailboxes_are_what_peers_addresses_are(text: str) -> None:
    """What the option takes, the SMTP grammar takes as well, and both return the same."""
    assert mailboxes.mailbox(text) == parse_mailbox(text.strip("<>"), strict=True, smtputf8=True)


@pytest.mark.parametrize(
    "text",
    ["", "ada", "@example.org", "ada@", "a b@c.test", "a@b@c", "a..b@c.test", "a@-b.test", "<a@b", "a@b\n", "ä@b.test",
     "x" * 65 + "@b.test", "a@" + "b." * 127 + "b", "a@" + "b" * 64],
)  # fmt: skip
def test_other_texts_are_no_mailboxes(text: str) -> None:
    """Blanks, control characters, missing parts and overlong parts are mistakes."""
    with pytest.raises(ValueError, match="expected"):
        mailboxes.mailbox(text)


def test_reverse_paths() -> None:
    """A list with ``;``, each once; the null reverse-path is a mistake, since every notice has it."""
    assert mailboxes.reverse_paths("a@b.test; <a@b.test>;c@d.test") == (Address("a", "b.test"), Address("c", "d.test"))
    assert mailboxes.reverse_paths("") == ()
    with pytest.raises(ValueError, match="<>"):
        mailboxes.reverse_paths("a@b.test;<>")


def test_tags() -> None:
    """A list with ``,``, each once, printable and not endless."""
    assert mailboxes.tags("spring, customer 9,spring,") == ("spring", "customer 9")
    for text in ("a\tb", "x" * 256):
        with pytest.raises(ValueError, match="expected"):
            mailboxes.tags(text)


def test_archive() -> None:
    """An ``@`` tells an address from a queue."""
    assert mailboxes.archive("journal@example.org") == Archive(address=Address("journal", "example.org"))
    assert mailboxes.archive("journal") == Archive(queue="journal")
    for text in ("journal@", "amq.direct"):
        with pytest.raises(ValueError, match="expected"):
            mailboxes.archive(text)


def test_cipher_strings() -> None:
    """What selects a cipher of TLS 1.2 is taken as it stands; what selects none is a mistake."""
    assert mailboxes.cipher_string("ECDHE+AESGCM:!aNULL") == "ECDHE+AESGCM:!aNULL"
    for text in ("NOPE", "TLS_AES_256_GCM_SHA384", "HIGH\0"):
        with pytest.raises(ValueError, match="expected an OpenSSL cipher string"):
            mailboxes.cipher_string(text)
