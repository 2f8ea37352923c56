"""What tables of properties are made of: the row, and the forms that values have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Property:
    """One property of an object.

    Attributes:
        name: As it is spelled in the JSON.
        form: JSON Schema of the value, without its description and its own properties.
        meaning: What it says, in one sentence.
        required: Is it always there?
        properties: What the value holds, when it is an object or an array of objects.
    """

    name: str
    form: Mapping[str, Any]
    meaning: str
    required: bool = False
    properties: tuple[Property, ...] = ()


def words(choices: Sequence[str]) -> dict[str, Any]:
    """Return the form of one of some words."""
    return {"type": "string", "enum": list(choices)}


TEXT = {"type": "string"}
TEXTS = {"type": "array", "items": TEXT}
YES_NO = {"type": "boolean"}
COUNT = {"type": "integer", "minimum": 0}
PORT = {"type": "integer", "minimum": 1, "maximum": 65535}
#: A PROXY header may say 0.
PROXIED_PORT = {"type": "integer", "minimum": 0, "maximum": 65535}
OBJECT = {"type": "object"}
OBJECTS = {"type": "array", "items": {"type": "object"}}
TIME = {"type": "string", "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}$"}
#: What scripts may write; ``model.times`` reads it.
ANY_TIME = {
    "type": "string",
    "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})?$",
}
MESSAGE_ID = {
    "type": "string",
    "pattern": "^[A-Za-z0-9-]{1,31}[.][0-9a-v]{26}[.][1-9][0-9]*$",
    "maxLength": 64,
}
BASE64 = {"type": "string", "contentEncoding": "base64"}
QUEUE = {"type": ["string", "null"], "minLength": 1, "maxLength": 255, "pattern": "^(?!amq[.])"}
NAME_OR_NAMES = {"anyOf": [TEXT, TEXTS]}
VALUES = {"type": "object", "additionalProperties": TEXT}
LISTS = {"type": "object", "additionalProperties": NAME_OR_NAMES}
