"""Signs messages for tests: with any tags, as hostile signers do, and with any key."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from functools import cache

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from mtaq.mailauth.dkim_canonical import RawField, body_hashes, parse_canonicalization
from mtaq.mailauth.dkim_message import SignedMessage

Key = rsa.RSAPrivateKey | Ed25519PrivateKey

MESSAGE = (
    b"From: Alice <alice@example.com>\r\n"
    b"To: bob@example.net\r\n"
    b"Subject: Is dinner\r\n\tready?\r\n"
    b"\r\n"
    b"Hi.  \r\n\r\nWe lost\tthe game.\r\n\r\n\r\n"
)


@cache
def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65_537, bits)


@cache
def ed25519_key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


def private_pem(key: rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


def record(key: Key, extra: str = "") -> str:
    """Return the TXT record of a key; *extra* are more tags, such as ``t=s;``."""
    if isinstance(key, Ed25519PrivateKey):
        return f"v=DKIM1; k=ed25519; {extra}p={base64.b64encode(key.public_key().public_bytes_raw()).decode()}"
    der = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return f"v=DKIM1; k=rsa; {extra}p={base64.b64encode(der).decode()}"


def sign(key: Key, digest: bytes) -> str:
    """Return a signature of a SHA-256 in base64."""
    if isinstance(key, Ed25519PrivateKey):
        value = key.sign(digest)
    else:
        value = key.sign(digest, PKCS1v15(), Prehashed(hashes.SHA256()))
    return base64.b64encode(value).decode()


def signed(content: bytes, key: Key, tags: Mapping[str, str] | None = None) -> bytes:
    """
    Return *content* under a DKIM-Signature.

    Args:
        tags: In place of those that would be written; an empty one is left out.
    """
    algorithm = "ed25519-sha256" if isinstance(key, Ed25519PrivateKey) else "rsa-sha256"
    wanted = {
        "v": "1", "a": algorithm, "c": "relaxed/relaxed", "d": "example.com", "s": "s1", "l": "",
        "h": "from:to:subject", "bh": "?", "b": "?",
    } | dict(tags or {})  # fmt: skip
    canonical = parse_canonicalization(wanted["c"] or "simple/simple")
    start = content.index(b"\r\n\r\n") + 4
    if wanted["bh"] == "?":
        lengths = [int(wanted["l"])] if wanted["l"].isdigit() else []
        body = body_hashes(content, start, relaxed=canonical.relaxed_body, lengths=lengths)
        digest = body.beginnings.get(lengths[0], b"?" * 32) if lengths else body.whole
        wanted["bh"] = base64.b64encode(digest).decode()
    b = wanted.pop("b")
    wanted["b"] = ""  # now the last one
    text = "; ".join(f"{name}={value}" for name, value in wanted.items() if value or name == "b")
    field = f"DKIM-Signature: {text}".encode()
    names = tuple(name.strip().lower().encode() for name in wanted["h"].split(":"))
    digest = SignedMessage(field + b"\r\n" + content).signed_hash(0, names, relaxed=canonical.relaxed_header)
    return field + (sign(key, digest) if b == "?" else b).encode() + b"\r\n" + content


def sealed(
    content: bytes, instance: int, key: Key, *, cv: str = "", domain: str = "", names: str = "from:to:subject"
) -> bytes:
    """Return *content* under one more ARC set, of ``d=<instance>.example``, selector ``s1``."""
    domain = domain or f"{instance}.example"
    cv = cv or ("none" if instance == 1 else "pass")
    algorithm = "ed25519-sha256" if isinstance(key, Ed25519PrivateKey) else "rsa-sha256"
    body = body_hashes(content, content.index(b"\r\n\r\n") + 4, relaxed=True)
    common = f"i={instance}; a={algorithm}; d={domain}; s=s1; "
    ams = f"ARC-Message-Signature: {common}c=relaxed/relaxed; h={names}; bh={base64.b64encode(body.whole).decode()}; b="
    covered = tuple(name.encode() for name in names.split(":"))
    digest = SignedMessage(ams.encode() + b"\r\n" + content).signed_hash(0, covered, relaxed=True)
    content = ams.encode() + sign(key, digest).encode() + b"\r\n" + content
    content = f"ARC-Authentication-Results: i={instance}; {domain}; none\r\n".encode() + content
    seal = f"ARC-Seal: {common}cv={cv}; b="
    content = seal.encode() + b"\r\n" + content
    return seal.encode() + sign(key, _seal_digest(content)).encode() + content[len(seal) :]


def _seal_digest(content: bytes) -> bytes:
    """What the seal at the top covers, written down without the code under test."""
    import hashlib

    import dkim.canonicalization

    message = SignedMessage(content)
    arc = [field for field in message.fields if field.name.startswith(b"arc-")]
    instances: dict[int, dict[bytes, RawField]] = {}
    for field in arc:
        instance = int(field.value.split(b"i=")[1].split(b";")[0])
        instances.setdefault(instance, {})[field.name] = field
    order = (b"arc-authentication-results", b"arc-message-signature", b"arc-seal")
    fields = [(f.name, f.value) for i in sorted(instances) for f in (instances[i][name] for name in order)]
    canonical = dkim.canonicalization.Relaxed.canonicalize_headers(fields)
    return hashlib.sha256(b"".join(name + b":" + value for name, value in canonical).removesuffix(b"\r\n")).digest()
