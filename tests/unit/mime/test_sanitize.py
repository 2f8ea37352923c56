"""HTML made harmless, however it is hidden, and nothing else touched; tests are named after the trick."""

from __future__ import annotations

import base64
import email
import quopri
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtaq.mime import sanitize
from mtaq.mime.sanitize import Level, sanitize_html
from tests.support.mail_readers import READERS

EVIL = b"<script>alert(1)</script><p onclick=x>hello</p>"
_find_evil = re.compile(rb"<script|<[a-z][^>]*onclick|javascript:", re.IGNORECASE).search


def html_seen(content: bytes) -> dict[str, list[bytes]]:
    """What each reader shows as HTML."""
    return {name: list(read(content)) for name, read in READERS.items()}


def assert_harmless(content: bytes) -> bytes:
    """Sanitise *content*, check it for every reader, and that a second time changes nothing more."""
    clean = sanitize_html(content)
    for name, seen in html_seen(clean).items():
        assert not any(map(_find_evil, seen)), name
    return clean


def html_message(html: bytes, fields: bytes = b"Content-Type: text/html; charset=utf-8\r\n") -> bytes:
    return b"Subject: x\r\n" + fields + b"\r\n" + html


def body_of(content: bytes) -> bytes:
    payload = email.message_from_bytes(content).get_payload(decode=True)
    assert isinstance(payload, bytes)
    return payload


# Levels.

PAGE = (
    '<h1 style="color:red;position:fixed">t</h1><a href="https://a.test/?x=1&amp;y" onclick="x()">l</a>'
    '<a href="javascript:x()">j</a><img src="http://t.test/i.gif"><img src="cid:1" alt="a"><font color="red">f</font>'
    "<form action=x><input></form><iframe src=x>i</iframe><style>p{}</style><!-- c --><svg><script>1</script></svg>"
)
LINK = 'rel="noopener noreferrer nofollow"'


@pytest.mark.parametrize(
    ("level", "html"),
    [
        ("strict", "<h1>t</h1>ljf"),
        ("basic", f'<h1>t</h1><a href="https://a.test/?x=1&amp;y" {LINK}>l</a><a {LINK}>j</a><img>'
                  '<img src="cid:1" alt="a">f'),
        ("relaxed", f'<h1 style="color:red">t</h1><a href="https://a.test/?x=1&amp;y" {LINK}>l</a><a {LINK}>j</a>'
                    '<img src="http://t.test/i.gif"><img src="cid:1" alt="a"><font color="red">f</font>'),
    ],
)  # fmt: skip
def test_levels(level: Level, html: str) -> None:
    """Each level keeps what it says; none keeps what acts."""
    assert body_of(sanitize_html(html_message(PAGE.encode()), level)).decode() == html


def test_basic_is_the_default_and_anchors_stay() -> None:
    """Links within the page stay, links relative to nothing go."""
    html = b'<a href="#top">a</a><a href="//x.test/">b</a><a href="x.html">c</a>'
    assert body_of(sanitize_html(html_message(html))).count(b"href") == 1


# Nothing else changes.

MIXED = b"""Subject: x\r
Content-Type: multipart/mixed;\r
 boundary="b b"\r
\r
preamble <script>\r
--b b\r
Content-Type: text/plain\r
\r
<script>plain</script>\r
-- \r
signature\r
--b b  \r
Content-Type: text/html; charset=utf-8\r
Content-ID: <1@x>\r
Content-Transfer-Encoding: 7bit\r
\r
HTML\r
--b b\r
Content-Type: application/octet-stream\r
Content-Transfer-Encoding: base64\r
\r
PHNjcmlwdD4=\r
--b b--\r
epilogue\r
"""


def test_html_parts_and_nothing_else_change() -> None:
    """All octets around the HTML stay: fields, delimiters, other parts, preamble and epilogue."""
    clean = sanitize_html(MIXED.replace(b"HTML", EVIL))
    assert clean == MIXED.replace(b"HTML", b"<p>hello</p>")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\r\n",
        b"Subject: x\r\n\r\n<script>text</script>\r\n",
        b"<script>no header</script>",
        b"Content-Type: text/plain\r\n\r\n<script>\r\n",
        b"Content-Type: text/plain; name=a.html\r\n\r\nx",
        MIXED.replace(b"text/html", b"text/plain"),
        b"Content-Type: image/svg+xml\r\n\r\n<svg/>",
        b"From nobody\r\nSubject: x\r\nno field\r\n\r\nbody",
    ],
)
def test_content_without_html_is_the_same_object(content: bytes) -> None:
    """Mail without HTML is not copied, broken or not."""
    assert sanitize_html(content) is content


def test_lf_only() -> None:
    """Content with LF line ends keeps them."""
    content = MIXED.replace(b"HTML", EVIL).replace(b"\r\n", b"\n")
    assert sanitize_html(content) == MIXED.replace(b"HTML", b"<p>hello</p>").replace(b"\r\n", b"\n")


def test_lengths_and_digests_that_are_no_longer_true_go() -> None:
    """`Content-Length`, `Lines` and `Content-MD5` of what was changed do not stay behind; others do."""
    fields = b"Content-Length: 5\r\nLines: 1\r\nContent-MD5: x\r\nContent-Type: text/html; charset=utf-8\r\n"
    assert sanitize_html(html_message(EVIL, fields)).startswith(b"Subject: x\r\nContent-Type")
    untouched = b"Content-Length: 5\r\nLines: 1\r\nContent-MD5: x\r\n\r\ntext"
    assert sanitize_html(untouched) is untouched


@pytest.mark.parametrize("encoding", ["base64", "quoted-printable", "7bit", "8bit", "binary", "BASE64", "", None])
def test_transfer_encodings(encoding: str | None) -> None:
    """The part keeps its encoding, and its text: it is decoded, made harmless, encoded."""
    html = "<p>grün €</p>".encode() + EVIL
    encoded = html
    if encoding and encoding.lower() == "base64":
        encoded = base64.encodebytes(html).replace(b"\n", b"\r\n")
    elif encoding == "quoted-printable" or encoding in (None, "", "7bit"):
        encoded = quopri.encodestring(html) if encoding else html
    fields = b"Content-Type: text/html; charset=utf-8\r\n"
    if encoding is not None:
        fields += f"Content-Transfer-Encoding: {encoding}\r\n".encode()
    if encoding == "7bit":
        encoded = html  # 8-bit octets where none may be
    clean = assert_harmless(html_message(encoded, fields))
    assert body_of(clean).decode().rstrip() == "<p>grün €</p><p>hello</p>"
    stays = encoding is not None and encoding.lower() in ("base64", "quoted-printable", "8bit", "binary")
    assert (f"Content-Transfer-Encoding: {encoding}\r\n".encode() in clean) is stays


@pytest.mark.parametrize(
    ("charset", "codec", "declared"),
    [
        ("utf-8", "utf-8", b"charset=utf-8"),
        ("iso-8859-1", "latin-1", b"charset=iso-8859-1"),
        ("windows-1252", "cp1252", b"charset=windows-1252"),
        ("utf-16", "utf-16", b"charset=utf-8"),
        ("utf-7", "utf-7", b"charset=utf-8"),
        ("iso-2022-jp-2", "iso2022_jp_2", b"charset=utf-8"),
        ("no-such-charset", "utf-8", b"charset=utf-8"),
        ("x" * 200, "utf-8", b"charset=utf-8"),
        ("punycode", "utf-8", b"charset=utf-8"),
    ],
)
def test_utf_7_utf_16_and_other_charsets(charset: str, codec: str, declared: bytes) -> None:
    """The text is read in its charset; where ASCII might not mean ASCII, it is written in UTF-8 and says so."""
    fields = f"Content-Type: text/html; charset={charset}\r\nContent-Transfer-Encoding: base64\r\n".encode()
    html = base64.encodebytes(("<p>grün</p>" + EVIL.decode()).encode(codec)).replace(b"\n", b"\r\n")
    clean = assert_harmless(html_message(html, fields))
    assert declared in clean
    text = body_of(clean).decode("utf-8" if declared == b"charset=utf-8" else codec)
    assert text.strip() == "<p>grün</p><p>hello</p>"


def test_utf_7_without_saying_so() -> None:
    """Without a charset in the field, a reader might guess UTF-7: the part says UTF-8 afterwards."""
    clean = sanitize_html(html_message(b"+ADw-script+AD4-", b"Content-Type: text/html\r\n"))
    assert b"Content-Type: text/html; charset=utf-8\r\n" in clean


def test_characters_that_the_charset_does_not_have() -> None:
    """References that the charset has no letter for stay references."""
    html = b"<p>&#8364; &auml;</p>"
    clean = sanitize_html(html_message(html, b"Content-Type: text/html; charset=iso-8859-1\r\n"))
    assert body_of(clean).decode("latin-1") == "<p>&#8364; ä</p>"


# Hiding.


@pytest.mark.parametrize(
    "fields",
    [
        b"content-type:TEXT/HTML\r\n",
        b"Content-Type : text/html\r\n",
        b"Content-Type:\r\n text/html\r\n",
        b"Content-Type\r\n : text/html\r\n",
        b"Content-Type: text / html\r\n",
        b"Content-Type: (c) text/html\r\n",
        b'Content-Type: "text/html"\r\n',
        b"Content-Type: text/html charset=utf-8\r\n",
        b"Content-Type: application/xhtml+xml\r\n",
        b"Content-Type: text/html\r\nContent-Type: text/plain\r\n",
        b"Content-Type: text/plain\r\nContent-Type: text/html\r\n",
        b"Content-Type: text/ht\rml\r\n",
        b"Content-Type: text/ht\x00ml\r\n",
        b"Subject: a\rContent-Type: text/html\r\n",
        b"Content-Type: text/html\r\nContent-Transfer-Encoding: base64\r\nContent-Transfer-Encoding: 7bit\r\n",
        b"Content-Type: text/html\r\nContent-Transfer-Encoding: x-uuencode\r\n",
        b"Content-Type: text/html; charset=utf-8; charset=utf-7\r\n",
        b"Content-Type: =?utf-8?Q?text/html?=\r\n",
        b"Content-Type: text/html\r\nContent-Disposition: attachment; filename=a.txt\r\n",
        b"no field\r\nContent-Type: text/html\r\n",
        b"Content-Type: text/html\r\nno field\r\n",
        b"From x\r\nContent-Type: text/html\r\n",
    ],
)
@pytest.mark.parametrize("ending", [b"\r\n", b"\n"])
def test_ways_to_say_html(fields: bytes, ending: bytes) -> None:
    """However the field is spelled, what any reader takes for HTML is harmless."""
    assert_harmless((fields + b"\r\n" + EVIL).replace(b"\r\n", ending))


@pytest.mark.parametrize(
    "content",
    [
        b"Content-Type: multipart/mixed; boundary=a; boundary=b\r\n\r\n--b\r\nHTML\r\n",
        b"Content-Type: multipart/mixed\r\n\r\n--b\r\nHTML\r\n--b--\r\n",
        b"Content-Type: multipart/mixed; boundary*=b\r\n\r\n--b\r\nHTML\r\n--b--\r\n",
        b"Content-Type: multipart/mixed; x=\"; boundary=b\"; boundary=a\r\n\r\n--b\r\nHTML",
        b"Content-Type: multipart/mixed; boundary=a\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n"
        b"HTML\r\n--b--\r\n",
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\ntext\r\n--bc\r\nHTML",
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b--\r\n--b\r\nHTML",
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--bc\r\nHTML\r\n--b--\r\n",
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\ntext\r--b\r\nHTML",
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n\r\n--b--x\r\nHTML",
        b"Content-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n--b\r\n\r\n"
        b"x\r\n=2D-b\r\nHTML\r\n--b--\r\n",
        b"Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\nHTML\r\n--b--\r\n",
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/html\r\nEVIL\r\n--b--\r\n",
        b"Content-Type: message/rfc822\r\n\r\nHTML",
        b"Content-Type: message/rfc822 x\r\n\r\nHTML",
        b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
        b"Content-Type: text/=\r\nhtml\r\n\r\nEVIL",
        b"Content-Type: message/partial; number=1\r\n\r\nHTML",
        b"Content-Type: message/external-body\r\n\r\nHTML",
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
        b"--b\r\nHTML\r\n--b--\r\n--b--\r\n",
    ],
    ids=["two boundaries", "no boundary", "encoded boundary", "boundary in a string", "two multiparts", "prefix",
         "after the end", "prefix in the preamble", "bare CR", "junk behind the end", "encoded multipart", "digest",
         "empty line missing", "message", "message and more", "encoded message", "partial", "external", "same twice"],
)  # fmt: skip
def test_structures_that_readers_see_differently(content: bytes) -> None:
    """Whatever one reader or another makes of the structure, no HTML of it acts."""
    assert_harmless(content.replace(b"HTML", b"Content-Type: text/html\r\n\r\n" + EVIL).replace(b"EVIL", EVIL))


def test_the_readers_can_be_fooled() -> None:
    """Each reader sees HTML that acts in some message: the tests here can fail."""
    structure = b"Content-Type: multipart/mixed; boundary=%b\r\n\r\n--b\r\nContent-Type: text/html\r\n\r\n" + EVIL
    for seen in html_seen(structure % b"b").values():
        assert any(map(_find_evil, seen))
    last = html_seen(structure % b"a; boundary=b")
    assert not any(map(_find_evil, last["first"]))
    assert any(map(_find_evil, last["last"]))
    prefix = html_seen(structure.replace(b"\r\n--b", b"\r\n--b x") % b"b")
    assert not any(map(_find_evil, prefix["first"]))
    assert any(map(_find_evil, prefix["prefix"]))
    bare = html_seen(structure.replace(b"--b", b"text\r--b") % b"b")
    assert not any(map(_find_evil, bare["first"]))
    assert any(map(_find_evil, bare["cr"]))


def test_message_inside_of_a_message() -> None:
    """An attached message is looked into, encoded or not, and what is around it stays."""
    inner = b"Subject: inner\r\nContent-Type: text/html; charset=utf-8\r\n\r\n" + EVIL
    outer = (
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: message/rfc822\r\n%b\r\n%b\r\n--b--\r\n"
    )
    clean = sanitize_html(outer % (b"", inner))
    assert clean == outer % (b"", inner.replace(EVIL, b"<p>hello</p>"))
    encoded = sanitize_html(outer % (b"Content-Transfer-Encoding: base64\r\n", base64.b64encode(inner)))
    assert base64.b64encode(inner.replace(EVIL, b"<p>hello</p>"))[:76] in encoded


def test_base64_behind_padding() -> None:
    """What stands behind padding is read by some, so it is made harmless as well."""
    html = base64.b64encode(b"<p>a</p>") + b"\r\n" + base64.b64encode(EVIL) + b"\r\n"
    fields = b"Content-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n"
    assert body_of(assert_harmless(html_message(html, fields))) == b"<p>a</p><p>hello</p>"


def test_delimiters_in_the_html() -> None:
    """Harmless HTML cannot bring delimiters of its own into the message."""
    html = b"<pre>\r\n--b\r\nContent-Type: text/plain\r\n\r\n-- x\r\n</pre>"
    clean = assert_harmless(html_message(html))
    assert b"\n--" not in clean
    assert b"--b\r\nContent-Type: text/plain" in body_of(clean)


def test_part_that_is_not_there() -> None:
    """A part without body has nothing to make harmless, and does not fail."""
    content = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/html\r\n--b--\r\n"
    assert_harmless(content)
    assert_harmless(b"Content-Type: text/html")
    assert_harmless(b"Content-Type: text/html\r\n\r\n")


# Bounds.


@pytest.mark.parametrize(
    "html",
    [
        b"<div>" * (sanitize.TAGS_LIMIT + 1),
        b"&" * (sanitize.REFERENCES_LIMIT + 1),
        b"<b " + b" ".join(b"a%d" % number for number in range(sanitize.ATTRIBUTES_LIMIT + 1)) + b">",
        b"<b " + b" ".join(b"a%d='>'" % number for number in range(sanitize.ATTRIBUTES_LIMIT + 1)) + b">",
        b"<b " + b"".join(b"a%d=\">\"" % number for number in range(sanitize.ATTRIBUTES_LIMIT + 1)) + b">",
        b"x" * (sanitize.CHARACTERS_LIMIT + 1),
    ],
    ids=["tags", "references", "attributes", "attributes in quotes", "attributes without blanks", "length"],
)  # fmt: skip
def test_html_that_takes_too_long_is_shown_as_its_source(html: bytes) -> None:
    """HTML that would keep the library busy is never passed on, and never given to it."""
    body = body_of(sanitize_html(html_message(html)))
    assert body.startswith(b"<pre>")
    assert body.endswith(b"</pre>")
    assert body.count(b"<") == 2


def test_nesting_without_end() -> None:
    """Parts in parts in parts: beyond a depth they are text."""
    content = b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (number, number) for number in range(10_000)
    )
    assert_harmless(content + b"Content-Type: text/html\r\n\r\n" + EVIL)


def test_parts_without_end() -> None:
    """Beyond a number of parts they are text."""
    part = b"--b\r\nContent-Type: text/html\r\n\r\n" + EVIL + b"\r\n"
    assert_harmless(b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + part * 1_500 + b"--b--\r\n")


def test_doubts_without_end() -> None:
    """A part full of lines that only begin like delimiters is text."""
    content = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--bc\r\n" * 5_000
    clean = assert_harmless(content + b"Content-Type: text/html\r\n\r\n" + EVIL)
    assert clean.startswith(b"Content-Type: text/plain")


# Everything at once.

PIECES = st.sampled_from(
    [
        b"Content-Type: text/html\r\n", b"Content-Type: text/html; charset=utf-7\r\n", b"Content-Type: text/plain\r\n",
        b"Content-Type: multipart/mixed; boundary=b\r\n", b"Content-Type: multipart/alternative; boundary=bc\r\n",
        b'Content-Type: multipart/mixed; boundary="b"; boundary=c\r\n', b"Content-Type: message/rfc822\r\n",
        b"Content-Type: multipart/digest; boundary=c\r\n", b"Content-Type: multipart/mixed\r\n",
        b"content-type :text/html;\r\n charset=x\r\n", b"Content-Transfer-Encoding: base64\r\n",
        b"Content-Transfer-Encoding: quoted-printable\r\n", b"Content-Transfer-Encoding: x-uue\r\n", b"\r\n", b"\r\n",
        b"--b\r\n", b"--b--\r\n", b"--bc\r\n", b"--c\r\n", b"--c--\r\n", b"--b junk\r\n", b"\r--b\r\n", b"--b\r",
        b"--b--junk\r\n", EVIL + b"\r\n", base64.b64encode(EVIL) + b"\r\n", EVIL.replace(b"<", b"=3C") + b"\r\n",
        b"Subject: x\r\n", b"junk\r\n", b" fold\r\n", b"\r", b"\n", b"\0", b"=\r\n", b"--=62\r\n",
        b"\r\nContent-Type: text/html\r\n\r\n", b"--b\r\nContent-Type: text/html\r\n\r\n",
    ]
)  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(st.lists(PIECES, max_size=24).map(b"".join))
def test_any_heap_of_pieces(content: bytes) -> None:
    """Whatever the pieces of a message make together, no reader sees HTML that acts."""
    assert_harmless(content)


@given(st.binary(max_size=300))
def test_any_octets(content: bytes) -> None:
    """No content makes it fail."""
    sanitize_html(b"Content-Type: text/html\r\n\r\n" + content)
    sanitize_html(content)


VECTORS = Path(__file__).parents[3].parent / "shared" / "vectors" / "mime"


@pytest.mark.skipif(not VECTORS.is_dir(), reason="the shared vectors are not here; their licences differ")
def test_messages_of_other_projects() -> None:
    """Every message that other projects test with comes out with harmless HTML, and unchanged where it has none."""
    seen = 0
    for path in sorted(VECTORS.rglob("*.eml")):
        content = path.read_bytes()
        clean = assert_harmless(content)
        again = sanitize_html(clean)
        assert html_seen(again)["library"] == html_seen(clean)["library"], path
        seen += 1
        if not re.search(rb"html|multipart|message/", content, re.IGNORECASE):
            assert clean is content, path
    assert seen > 100
