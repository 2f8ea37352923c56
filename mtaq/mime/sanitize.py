"""Takes out of the HTML in a message what could act, follow or fetch; nothing else changes, byte for byte.

What is HTML must be found in spite of whoever hides it, and readers of mail disagree about broken messages. So doubt is
resolved towards harmlessness. A part that any of its fields calls HTML is taken for HTML, and comes out with one type,
one charset and one encoding. A part whose structure two readers may see differently (two boundaries, none, two types)
becomes plain text, with all its octets; so does one of more parts than anybody looks at. A part that holds what some
readers, but not all, take for a delimiter is written in base64. HTML that is too large or too deep to be taken apart is
shown as its own source. Nothing raises.

Only HTML parts are looked at: files that a browser would open (SVG, XML, ``.html`` as ``application/octet-stream``) and
what is inside of archives and TNEF containers stay. Signatures over what is changed break, by design. ``nh3`` knows
HTML; for large content this is a matter for a thread.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from functools import cache
from typing import Literal

import nh3

from mtaq.mime.charsets import codec_of, decode
from mtaq.mime.entity import (
    DEPTH_LIMIT,
    PARTS_LIMIT,
    Entity,
    boundary_of,
    delimiters,
    entity_at,
    gaps_between,
    parameters,
    parts_between,
)
from mtaq.mime.transfer import IDENTITIES, decoded, fits_unencoded, to_base64, to_quoted_printable

Level = Literal["strict", "basic", "relaxed"]

#: HTML beyond these is not taken apart: time grows with the square of all but the first, to about a second here.
CHARACTERS_LIMIT = 2_000_000
TAGS_LIMIT = 20_000
REFERENCES_LIMIT = 50_000
ATTRIBUTES_LIMIT = 500  # of one tag

#: Messages in name only: fields for programs.
_REPORTS = (
    b"message/delivery-status", b"message/global-delivery-status", b"message/disposition-notification",
    b"message/global-disposition-notification", b"message/feedback-report",
)  # fmt: skip

_TYPE, _ENCODING = b"content-type", b"content-transfer-encoding"
#: What ends a line, or vanishes, for some readers only.
_ODD_OCTET = re.compile(rb"\r(?!\n)|\0")
#: A line that is no header field: some readers begin the body there.
_JUNK = re.compile(rb"^(?![ \t]|[!-9;-~]++(?:[ \t]|\r?\n[ \t])*+:|\r?(?:\n|\Z))", re.MULTILINE)
_MBOX_LINE = re.compile(rb">?From [^\n]*\n")
_CHARSET_WORD = re.compile(rb"charset", re.IGNORECASE)
#: Charsets in which every octet below 128 is ASCII wherever it stands; the others are written as UTF-8.
_is_plain_codec = re.compile(r"utf-8|ascii|iso8859-\d+|cp125\d|koi8-[ru]").fullmatch
# Wherever a tag may begin; how far it goes is HTML's own rule.
_has_long_tag = re.compile(
    r"<[A-Za-z][^\t\n\f />]*+(?:[\t\n\f /]*+[^\t\n\f />][^\t\n\f />=]*+"
    r"(?:[\t\n\f ]*+=[\t\n\f ]*+(?:\"[^\"]*+\"?|'[^']*+'?|[^\t\n\f >]*+))?+)"
    rf"{{{ATTRIBUTES_LIMIT}}}"
).search

_STRUCTURE = {
    "p", "br", "hr", "div", "span", "h1", "h2", "h3", "h4", "h5", "h6", "b", "strong", "i", "em", "u", "s", "sub",
    "sup", "small", "big", "code", "kbd", "samp", "var", "pre", "tt", "q", "cite", "blockquote", "ul", "ol", "li",
    "dl", "dt", "dd", "table", "caption", "thead", "tbody", "tfoot", "tr", "td", "th", "center", "abbr", "del", "ins",
}  # fmt: skip
_TABLE_ATTRIBUTES = {
    "table": {"border", "cellpadding", "cellspacing", "width", "align", "summary"},
    "td": {"colspan", "rowspan", "width", "height", "align", "valign"},
    "th": {"colspan", "rowspan", "width", "height", "align", "valign", "scope"},
    "tr": {"align", "valign"},
    "ol": {"start", "type"},
    "li": {"value"},
}
_IMAGE_ATTRIBUTES = {"src", "alt", "width", "height", "border", "align"}
_STYLE_PROPERTIES = {
    "color", "background-color", "font", "font-family", "font-size", "font-style", "font-weight", "line-height",
    "text-align", "text-decoration", "text-indent", "vertical-align", "white-space", "width", "height", "max-width",
    "margin", "margin-top", "margin-right", "margin-bottom", "margin-left", "padding", "padding-top", "padding-right",
    "padding-bottom", "padding-left", "border", "border-top", "border-right", "border-bottom", "border-left",
    "border-collapse", "border-spacing", "border-color", "border-style", "border-width", "border-radius",
    "list-style-type", "direction",
}  # fmt: skip
#: What goes with all it holds.
_REMOVED = {
    "script", "style", "title", "template", "iframe", "object", "embed", "applet", "noembed", "noframes", "noscript",
    "svg", "math", "xmp", "plaintext", "textarea", "select",
}  # fmt: skip


def sanitize_html(content: bytes, level: Level = "basic") -> bytes:
    """
    Return *content* with harmless HTML parts; the same object when it has none.

    Args:
        content: A message; its line ends stay what they are.
        level: ``strict`` keeps structure and emphasis. ``basic`` adds links (``http``, ``https``, ``mailto``, ``tel``)
            and images that the message itself brings (``cid:``). ``relaxed`` adds images from elsewhere, colours, fonts
            and a list of style properties. Scripts, forms, frames, comments and style sheets never stay.
    """
    return _Sanitizer(content, _cleaner(level), depth=0, parts=[0]).run()


@cache
def _cleaner(level: Level) -> nh3.Cleaner:
    tags, attributes = set(_STRUCTURE), {name: set(words) for name, words in _TABLE_ATTRIBUTES.items()}
    if level != "strict":
        tags |= {"a", "img"}
        attributes |= {"a": {"href", "title", "name"}, "img": set(_IMAGE_ATTRIBUTES)}
    if level == "relaxed":
        tags |= {"font"}
        attributes |= {"font": {"color", "face", "size"}}
        attributes["*"] = {"style", "dir", "lang", "title", "bgcolor"}
    return nh3.Cleaner(
        tags=tags,
        clean_content_tags=_REMOVED,
        attributes=attributes,
        attribute_filter=None if level == "relaxed" else _without_remote_images,
        strip_comments=True,
        link_rel="noopener noreferrer nofollow",
        url_schemes={"http", "https", "mailto", "tel", "cid"},
        filter_style_properties=_STYLE_PROPERTIES if level == "relaxed" else set(),
        url_relative=_only_in_page,
    )


def _only_in_page(url: str) -> str | None:
    return url if url.startswith("#") else None


def _without_remote_images(tag: str, attribute: str, value: str) -> str | None:
    return None if tag == "img" and attribute == "src" and not value.lower().startswith("cid:") else value


class _Sanitizer:
    """One pass over a message: notes what to put where, and puts it there in the end."""

    def __init__(self, content: bytes, cleaner: nh3.Cleaner, *, depth: int, parts: list[int]) -> None:
        self._original = content
        self._content = bytearray(content)
        self._cleaner = cleaner
        self._depth = depth
        self._parts = parts
        self._edits: list[tuple[int, int, bytes]] = []

    def run(self) -> bytes:
        self._walk(0, len(self._content), self._depth, ())
        if not self._edits:
            return self._original if self._content == self._original else bytes(self._content)
        top = entity_at(self._content, 0, len(self._content))
        self._drop(top, b"content-length", b"lines")
        pieces, position = list[bytes | bytearray](), 0
        for start, end, new in sorted(dict.fromkeys(self._edits), key=lambda edit: edit[:2]):
            pieces += [self._content[position:start], new]
            position = end
        return b"".join([*pieces, self._content[position:]])

    # What a part is.

    def _walk(self, start: int, end: int, depth: int, doubtful: tuple[int, ...], *, in_digest: bool = False) -> None:
        entity = self._entity(start, end)
        self._parts[0] += 1
        types = entity.values(_TYPE)
        media = [_bare(value.partition(b";")[0]) for value in types]
        within = tuple(place for place in doubtful if start <= place < end)
        if self._parts[0] > PARTS_LIMIT or depth > DEPTH_LIMIT:
            self._make_text(entity, within)
        elif any(word.startswith((b"multipart/", b"message/")) for word in media) or (in_digest and not types):
            self._walk_composite(entity, types, depth, within)
        elif any(b"html" in word or b"=?" in word for word in media):
            self._make_text(entity, within) if self._has_junk(entity) else self._clean(entity, types)
        elif any(entity.body <= place for place in within):
            self._make_base64(entity)
        elif within:
            self._make_text(entity, within)

    def _entity(self, start: int, end: int) -> Entity:
        """Bare CR and NUL in a header section are blanks for all readers from here on."""
        entity = entity_at(self._content, start, end)
        if not _ODD_OCTET.search(self._content, start, entity.stop):
            return entity
        self._content[start : entity.stop] = _ODD_OCTET.sub(b" ", self._content[start : entity.stop])
        return entity_at(self._content, start, end)

    def _has_junk(self, entity: Entity) -> bool:
        """May some readers begin the body before the empty line?"""
        start = entity.start
        if mbox := _MBOX_LINE.match(self._content, start, entity.stop):
            start = mbox.end()
        return self._content.startswith((b" ", b"\t"), start, entity.stop) or bool(
            _JUNK.search(self._content, start, entity.stop)
        )

    def _walk_composite(self, entity: Entity, types: list[bytes], depth: int, doubtful: tuple[int, ...]) -> None:
        word = types[0].partition(b";")[0].strip().lower() if types else b"message/rfc822"
        if len(types) > 1 or any(place < entity.body for place in doubtful) or self._has_junk(entity):
            self._make_text(entity, doubtful)
        elif word in _REPORTS:
            if doubtful:
                self._make_base64(entity)
        elif word.startswith(b"message/") and b"partial" not in word:
            self._walk_message(entity, depth, doubtful)
        else:
            boundary = boundary_of(types[0]) if word.startswith(b"multipart/") else None
            if boundary is None:
                self._make_text(entity, doubtful)
            else:
                self._walk_parts(entity, boundary, depth, doubtful, in_digest=word == b"multipart/digest")

    def _walk_parts(
        self, entity: Entity, boundary: bytes, depth: int, doubtful: tuple[int, ...], *, in_digest: bool
    ) -> None:
        cuts = delimiters(self._content, boundary, entity.body, entity.end)
        if len(cuts.lines) > PARTS_LIMIT or len(cuts.doubtful) > PARTS_LIMIT:
            self._make_text(entity, doubtful)
            return
        if entity.encoding not in IDENTITIES:  # RFC 2045 §6.4 allows none; some readers decode all the same
            self._drop(entity, _ENCODING)
        doubtful += tuple(cuts.doubtful)
        for start, end in parts_between(self._content, cuts, entity.end):
            self._walk(start, end, depth + 1, doubtful, in_digest=in_digest)
        for start, end in gaps_between(self._content, cuts, entity):  # shown to nobody, as a rule
            self._walk(start, end, depth + 1, doubtful)

    def _walk_message(self, entity: Entity, depth: int, doubtful: tuple[int, ...]) -> None:
        encoding = entity.encoding
        if len(entity.values(_ENCODING)) <= 1 and encoding in IDENTITIES:
            self._walk(entity.body, entity.end, depth + 1, doubtful)
        elif encoding in ("base64", "quoted-printable"):
            inner = decoded(bytes(self._content[entity.body : entity.end]), encoding)
            inner = _Sanitizer(inner, self._cleaner, depth=depth + 1, parts=self._parts).run()
            self._put_base64(entity, inner)
        else:
            self._make_text(entity, doubtful)

    # What becomes of it.

    def _clean(self, entity: Entity, types: list[bytes]) -> None:
        newline = self._newline(entity)
        octets = decoded(bytes(self._content[entity.body : entity.end]), entity.encoding)
        charset = parameters(entity.text(_TYPE)).get("charset", "")
        codec = codec_of(charset) if charset else None
        is_plain = len(types) == 1 and len(_CHARSET_WORD.findall(types[0])) == 1
        is_plain = is_plain and entity.media_type == "text/html"
        keeps_type = is_plain and codec is not None and _is_plain_codec(codec) is not None
        text = _harmless(decode(octets, charset or None), self._cleaner.clean)
        if octets.endswith(b"\n") and not text.endswith("\n"):
            text += "\n"
        clean = text.encode(codec if keeps_type and codec else "utf-8", "xmlcharrefreplace")
        self._drop(entity, b"content-md5", b"content-length")
        if not keeps_type:
            self._drop(entity, _TYPE)
            self._add(entity, b"Content-Type: text/html; charset=utf-8")
        self._put_body(entity, clean.replace(b"\n", newline), newline)

    def _put_body(self, entity: Entity, octets: bytes, newline: bytes) -> None:
        encodings = entity.values(_ENCODING)
        encoding = entity.encoding if len(encodings) <= 1 else "?"
        if encoding == "base64":
            ending = newline if self._content.endswith(b"\n", entity.body, entity.end) else b""
            self._edits.append((entity.body, entity.end, to_base64(octets, newline) + ending))
        elif encoding in IDENTITIES and fits_unencoded(octets, eight_bit=encoding in ("8bit", "binary")):
            self._edits.append((entity.body, entity.end, octets))
        else:
            if encoding != "quoted-printable":
                self._drop(entity, _ENCODING)
                self._add(entity, b"Content-Transfer-Encoding: quoted-printable")
            self._edits.append((entity.body, entity.end, to_quoted_printable(octets, newline)))

    def _make_text(self, entity: Entity, doubtful: tuple[int, ...]) -> None:
        """Have it shown as its own source: every reader sees one part of plain text."""
        body = bytes(self._content[entity.body : entity.end])
        self._drop(entity, _TYPE, _ENCODING, b"content-md5")
        self._add(entity, b"Content-Type: text/plain; charset=utf-8")
        if any(entity.body <= place < entity.end for place in doubtful):
            self._put_base64(entity, body)
        elif not body.isascii():
            self._add(entity, b"Content-Transfer-Encoding: 8bit")

    def _make_base64(self, entity: Entity) -> None:
        """Keep what it carries, in octets that nobody takes for a delimiter."""
        self._put_base64(entity, decoded(bytes(self._content[entity.body : entity.end]), entity.encoding))

    def _put_base64(self, entity: Entity, octets: bytes) -> None:
        self._drop(entity, _ENCODING, b"content-md5", b"content-length")
        self._add(entity, b"Content-Transfer-Encoding: base64")
        self._edits.append((entity.body, entity.end, to_base64(octets, self._newline(entity))))

    # Header sections.

    def _drop(self, entity: Entity, *names: bytes) -> None:
        self._edits += [(field.start, field.end, b"") for field in entity.fields if field.name in names]

    def _add(self, entity: Entity, field: bytes) -> None:
        newline = self._newline(entity)
        starts_line = entity.stop == entity.start or self._content[entity.stop - 1] == 0x0A
        self._edits.append((entity.stop, entity.stop, (b"" if starts_line else newline) + field + newline))

    def _newline(self, entity: Entity) -> bytes:
        return b"\r\n" if self._content.find(b"\r\n", entity.start, entity.body) >= 0 else b"\n"


def _bare(word: bytes) -> bytes:
    """Return a media type in lower case without what a reader may pass over."""
    return re.sub(rb"[\x00-\x20\"'()<>\\\x7f]", b"", word).lower()


def _harmless(text: str, clean: Callable[[str], str]) -> str:
    """Return harmless HTML with LF line ends; the source as text where taking it apart would take too long."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")
    return clean(text).replace("\r", "") if _is_tractable(text) else f"<pre>{html.escape(text)}</pre>"


def _is_tractable(text: str) -> bool:
    return (
        len(text) <= CHARACTERS_LIMIT
        and text.count("<") <= TAGS_LIMIT
        and text.count("&") <= REFERENCES_LIMIT
        and not _has_long_tag(text)
    )
