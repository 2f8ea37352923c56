"""Binary content for servers that do not take it."""

from __future__ import annotations

import email
import email.policy
from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaq.mime.downconvert import CannotConvert, with_crlf_header, without_binary
from mtaq.mime.entity import DEPTH_LIMIT
from mtaq.smtp.data import has_bare_cr_or_lf, has_long_line

PNG = b"\x89PNG\r\n\x1a\n\0\0\xff\r\r-- b"


def multipart(*parts: bytes, subtype: str = "mixed", encoding: str = "binary") -> bytes:
    head = f'MIME-Version: 1.0\r\nContent-Type: multipart/{subtype}; boundary="b"\r\n'.encode()
    head += f"Content-Transfer-Encoding: {encoding}\r\n".encode() if encoding else b""
    return head + b"\r\n" + b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + b"--b--\r\n"


def image(body: bytes = PNG) -> bytes:
    return b"Content-Type: image/png\r\nContent-Transfer-Encoding: binary\r\n\r\n" + body


def parsed(content: bytes) -> EmailMessage:
    message = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def fits(content: bytes) -> bool:
    return not has_bare_cr_or_lf(content) and not has_long_line(content) and b"\0" not in content


def test_a_binary_part_becomes_base64() -> None:
    """It carries the same octets, and what stands beside it stays as it was."""
    text = b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\xc3\xa9  \t\r\n.dot\r\n"
    content = without_binary(multipart(text, image()))
    assert fits(content)
    assert text in content
    (first, second) = parsed(content).iter_parts()
    assert second.get_payload(decode=True) == PNG
    assert (first["content-transfer-encoding"], second["content-transfer-encoding"]) == ("8bit", "base64")
    assert parsed(content)["content-transfer-encoding"] == "8bit"


@pytest.mark.parametrize("body", [b"x\n", b"x\rx\r\n", b"\0", b"x" * 999, b"\xff" * 5000])
def test_a_message_without_parts(body: bytes) -> None:
    """Whatever cannot go in lines; and it ends in a line end."""
    content = without_binary(b"Content-Type: application/x\r\n\r\n" + body)
    assert fits(content)
    assert content.endswith(b"\r\n")
    assert parsed(content).get_payload(decode=True) == body


@pytest.mark.parametrize("body", [b"", b"plain\r\n", b"\xc3\xa9\r\n", b"x" * 998 + b"\r\n"])
def test_what_fits_stays(body: bytes) -> None:
    """Only its encoding is called what it is."""
    content = without_binary(b"Subject: x\r\nContent-Transfer-Encoding: binary\r\nTo: a@b.test\r\n\r\n" + body)
    encoding = b"7bit" if body.isascii() else b"8bit"
    assert content == (
        b"Subject: x\r\nTo: a@b.test\r\nContent-Transfer-Encoding: " + encoding + b"\r\n\r\n" + body
    )  # fmt: skip
    assert without_binary(b"Subject: x\r\n\r\n" + body) == b"Subject: x\r\n\r\n" + body


def test_messages_in_messages() -> None:
    """Their parts are converted; they themselves have no encoding (RFC 2046 §5.2.1)."""
    inner = b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: binary\r\n\r\nSubject: in\r\n" + image(b"\0")
    content = without_binary(multipart(inner))
    (part,) = parsed(content).iter_parts()
    assert part["content-transfer-encoding"] == "7bit"
    assert part.get_content().get_payload(decode=True) == b"\0"
    assert part.get_content()["subject"] == "in"


def test_lines_between_the_parts() -> None:
    """Bare line ends in header sections are mended; what is read by nobody is left out where it does not fit."""
    content = multipart(image().replace(b"\r\n\r\n", b"\n\n", 1)).replace(b"\r\n\r\n--b", b"\r\n\r\npre\namble\r\n--b")
    content = without_binary(content + b"epi\0logue")
    assert fits(content)
    assert b"amble" not in content
    assert b"logue" not in content
    (part,) = parsed(content).iter_parts()
    assert part.get_payload(decode=True) == PNG


def test_an_encoded_part_in_bare_lines() -> None:
    """Base64 is written anew; another encoding that is in no lines cannot be."""
    encoded = b"Content-Type: image/png\r\nContent-Transfer-Encoding: BASE64\r\n\r\nAAEC\nAw==\n"
    (part,) = parsed(without_binary(multipart(encoded))).iter_parts()
    assert part.get_payload(decode=True) == b"\0\1\2\3"
    with pytest.raises(CannotConvert, match="quoted-printable"):
        without_binary(multipart(encoded.replace(b"BASE64", b"quoted-printable")))


def nested(depth: int) -> bytes:
    return b"Content-Type: message/rfc822\r\n\r\n" * depth + b"Subject: x\r\n\r\n\0"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (multipart(image(), subtype="signed"), "multipart/signed"),
        (multipart(image(), subtype="encrypted"), "multipart/encrypted"),
        (b"Content-Type: multipart/mixed\r\n\r\n\0", "not clear"),
        (b"Content-Type: multipart/mixed; boundary=b\r\n\r\n\0", "not clear"),
        (multipart(b"X: " + b"y" * 999 + b"\r\n\r\n\0"), "a line of more than"),
        (multipart(*[b"\r\n"] * 1100), "not clear"),
        (multipart(image(PNG + b"\r--b")), "not clear"),
        (nested(DEPTH_LIMIT + 1), "nested too deep"),
    ],
    ids=["signed", "encrypted", "no boundary", "no delimiter", "long header", "parts", "doubtful", "depth"],
)
def test_what_cannot_be_converted(content: bytes, reason: str) -> None:
    """Where it would be broken by it, or read differently, it is left alone."""
    with pytest.raises(CannotConvert, match=reason):
        without_binary(content)


def test_signed_content_in_lines_is_kept() -> None:
    """What is signed and fits goes as it is."""
    content = multipart(b"\r\ntext", b"Content-Type: application/pgp-signature\r\n\r\nx", subtype="signed", encoding="")
    assert without_binary(content) == content


def test_header_sections_alone() -> None:
    """Their line ends become CRLF, the body stays what it is."""
    assert with_crlf_header(b"A: b\nC: d\n\nx\n\0") == b"A: b\r\nC: d\r\n\r\nx\n\0"
    assert with_crlf_header(b"A: b\r\n\r\nx\n") == b"A: b\r\n\r\nx\n"


@given(st.lists(st.sampled_from([
    b"Content-Type: multipart/mixed; boundary=b", b"Content-Type: message/rfc822", b"Content-Transfer-Encoding: binary",
    b"\r\n", b"\n", b"\r", b"--b", b"--b--", b"\0", b"\xff", b"text", b"\r\n\r\n",
]), max_size=30))  # fmt: skip
def test_any_content(pieces: list[bytes]) -> None:
    """It is converted into lines that stay as they are, or said to be inconvertible."""
    try:
        content = without_binary(b"".join(pieces))
    except CannotConvert:
        return
    assert fits(content)
    assert without_binary(content) == content
