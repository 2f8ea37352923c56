"""The ``dkim`` property: what one signature is asked for with, and what a result shows of it."""

from __future__ import annotations

from mtaq.model.dkim_property import CANONICALIZATIONS, MAX_NAMES, MAX_REQUESTS, PROTOCOLS
from mtaq.model.schema_forms import ANY_TIME, YES_NO, Property, words

_TEXT = {"type": "string", "minLength": 1}
_NAMES = {"type": "array", "items": {"type": "string", "pattern": "^[!-9<-~]{1,76}$"}, "maxItems": MAX_NAMES}
_REQUESTS = {"type": ["object", "array"], "items": {"type": "object"}, "maxItems": MAX_REQUESTS}

_SHOWN = (
    Property("domain", _TEXT, "The domain that signs (`d=`).", required=True),
    Property("selector", _TEXT, "Which of its keys (`s=`).", required=True),
    Property("headers", _NAMES, "Fields to sign beside the usual ones."),
    Property(
        "expire",
        {"anyOf": [ANY_TIME, {"type": "integer", "minimum": 1, "maximum": 99_999_999_999}]},
        "When the signature ends (`x=`): a time, seconds since 1970, or, up to 10^9, seconds from signing on.",
    ),
    Property("canonicalization", words(CANONICALIZATIONS), "`relaxed/relaxed` when left out."),
    Property(
        "protocols",
        {"type": "array", "items": words(PROTOCOLS), "minItems": 1},
        "A DKIM signature, an ARC set, or both; `dkim` when left out.",
    ),
    Property(
        "oversign",
        {"anyOf": [YES_NO, _NAMES]},
        "Fields that nobody may add, `true` for all that are signed; From never may be added.",
    ),
)
_KEY = Property("key", _TEXT, "The private key, RSA or Ed25519, in PEM; left out of results.", required=True)

DKIM_ASKED = Property("dkim", _REQUESTS, "Signatures to make with keys of the message.", properties=(*_SHOWN, _KEY))
DKIM_SHOWN = Property("dkim", _REQUESTS, "Signatures that were asked for, without the keys.", properties=_SHOWN)
