"""The few messages of LDAP, and names that try to be more than a name."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from mtaq.smtpauth import Verdict
from mtaq.smtpauth.ldap import LdapBind, bind_request, bind_result, escaped

SUCCESS = bytes.fromhex("300c02010161070a010004000400")


def response(code: int) -> bytes:
    """A bind response with *code*."""
    return SUCCESS[:9] + bytes((code,)) + SUCCESS[10:]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("ada", "ada"),
        ("ada.l-1_x@example.org", "ada.l-1_x@example.org"),
        ("x,dc=evil", "x\\2cdc\\3devil"),
        ("*)(uid=", "\\2a\\29\\28uid\\3d"),
        ("#41", "\\2341"),
        (" a ", "\\20a\\20"),
        ('"+;<>\\', "\\22\\2b\\3b\\3c\\3e\\5c"),
        ("a\0b", "a\\00b"),
        ("é", "\\c3\\a9"),
    ],
)
def test_names_are_escaped(name, wanted):
    """Whatever could mean something in a DN is written in hexadecimal."""
    assert escaped(name) == wanted


def test_the_request():
    """A simple bind of version 3, as the standard's own notation has it."""
    assert bind_request("uid=a,dc=x", "pw") == bytes.fromhex("3018020101 6013 020103 040a") + b"uid=a,dc=x\x80\x02pw"


def test_a_long_request():
    """Lengths from 128 on take more octets."""
    request = bind_request("uid=a,dc=x", "p" * 300)
    assert request[:4] == bytes.fromhex("30820146")
    assert request.endswith(b"\x80\x82\x01\x2c" + b"p" * 300)


def reading(*pieces: bytes):
    """A way to a server that sends *pieces* and closes."""

    class Writer:
        def write(self, data: bytes) -> None:
            pass

        async def drain(self) -> None:
            pass

    @asynccontextmanager
    async def connect(host, port, *, tls, timeout_s):
        reader = asyncio.StreamReader()
        for piece in pieces:
            reader.feed_data(piece)
        reader.feed_eof()
        yield reader, Writer()

    return LdapBind("host", 389, "dc=x", tls=False, connect=connect)


async def verdict(*pieces: bytes) -> Verdict:
    """What comes of an answer."""
    try:
        return await reading(*pieces).check("ada", "secret", "192.0.2.1")
    except OSError:
        return Verdict.UNAVAILABLE


LONG_FORM = bytes.fromhex("308400000010 020101 618400000007 0a0100 0400 0400")
WITH_MORE = bytes.fromhex("3012 020101 6109 0a0100 0400 0400 8700 a002 3000")
NOT_REQUESTED = bytes.fromhex("300c 020100 6107 0a0100 0400 0400")
DISCONNECTION = bytes.fromhex("3024 020100 781f 0a0134 0400 0400 8a16") + b"1.3.6.1.4.1.1466.20036"


@pytest.mark.parametrize("message", [SUCCESS, LONG_FORM, WITH_MORE])
async def test_success_whole_and_byte_by_byte(message):
    """Success is success, in short and long form, with credentials and controls of the server, however it arrives."""
    assert await verdict(message) is Verdict.ACCEPTED
    assert await verdict(*(message[n : n + 1] for n in range(len(message)))) is Verdict.ACCEPTED


@pytest.mark.parametrize(
    ("code", "wanted"),
    [(0, Verdict.ACCEPTED), (49, Verdict.REFUSED), (32, Verdict.REFUSED), (34, Verdict.REFUSED), (48, Verdict.REFUSED),
     (53, Verdict.REFUSED), (19, Verdict.REFUSED), (50, Verdict.REFUSED), (8, Verdict.UNAVAILABLE),
     (10, Verdict.UNAVAILABLE), (14, Verdict.UNAVAILABLE), (51, Verdict.UNAVAILABLE), (52, Verdict.UNAVAILABLE),
     (80, Verdict.UNAVAILABLE), (1, Verdict.UNAVAILABLE), (128, Verdict.UNAVAILABLE)],
)  # fmt: skip
async def test_result_codes(code, wanted):
    """Only success is a yes; codes about the user are a no, the rest says nothing."""
    assert await verdict(response(code)) is wanted


@pytest.mark.parametrize("length", range(len(SUCCESS)))
async def test_half_a_response(length):
    """A response that stops anywhere is no yes."""
    assert await verdict(SUCCESS[:length]) is Verdict.UNAVAILABLE


@pytest.mark.parametrize("position", [0, 1, 2, 3, 5, 6, 7, 8, 10, 11, 12, 13])
@pytest.mark.parametrize("octet", [0x01, 0x7F, 0x80, 0x84, 0x85, 0xFF])
async def test_a_damaged_response(position, octet):
    """A response with one octet changed leads to no yes, and to nothing but a verdict."""
    message = bytearray(SUCCESS)
    message[position] = octet
    damaged = bytes(message)
    if damaged != SUCCESS:
        assert await verdict(damaged + bytes(200)) is not Verdict.ACCEPTED


@pytest.mark.parametrize(
    "message",
    [
        DISCONNECTION,
        NOT_REQUESTED,
        SUCCESS[:4] + b"\x02" + SUCCESS[5:],
        b"\x30\x80" + SUCCESS[2:] + b"\0\0",
        b"\x30\x84\xff\xff\xff\xff",
        b"\x30\x85\0\0\0\0\x0c" + SUCCESS[2:],
        b"HTTP/1.1 200 OK\r\n\r\n",
    ],
)
async def test_other_messages(message):
    """A notice of disconnection, another request's response, forms that LDAP does not have: nobody knows."""
    assert await verdict(message) is Verdict.UNAVAILABLE


def test_bind_result_of_nonsense():
    """Nothing but ``OSError`` comes of any octets."""
    for data in (
        b"",
        b"\x02",
        b"\x02\x01",
        b"\x02\x85\1\1\1\1\1",
        b"\x02\x81",
        b"\x02\x01\x01\x61\x84\xff\xff\xff\xff",
    ):
        with pytest.raises(OSError, match="no response"):
            bind_result(data)


async def test_an_empty_password():
    """An empty password is refused without asking: directories answer it with success."""
    assert await reading(SUCCESS).check("ada", "", "192.0.2.1") is Verdict.REFUSED
