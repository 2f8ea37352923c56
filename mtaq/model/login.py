"""What a back end of logins says of a user and a password."""

from __future__ import annotations

import enum


class Verdict(enum.Enum):
    """
    May this user log in with this password?

    Attributes:
        ACCEPTED: Yes.
        REFUSED: No: no such user, another password, or an account that is closed.
        UNAVAILABLE: Nobody could say; never to be taken for yes.
    """

    ACCEPTED = "accepted"
    REFUSED = "refused"
    UNAVAILABLE = "unavailable"
