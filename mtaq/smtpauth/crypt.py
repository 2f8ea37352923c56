"""Does a password fit a hash of crypt(3)? Asks the C library, which knows every scheme of the system's own accounts.

Takes milliseconds and gives the interpreter to others meanwhile: call it in a thread. Schemes that are no longer safe
(DES, ``$1$``) count as fitting nothing.
"""

from __future__ import annotations

import ctypes
import hmac
import re
from collections.abc import Callable
from functools import cache

#: SHA-256, SHA-512, yescrypt, bcrypt (2a and 2y are what some tools write for 2b).
_match_usable = re.compile(r"\$(?:5|6|y|2[aby])\$[!-~]+").fullmatch
#: ``struct crypt_data`` of glibc before libxcrypt, the largest of them; the others need less.
_DATA_BYTES = 131_232
#: The second is the name under which libxcrypt comes without the old interface; ``None`` is musl, whose libc has it.
_LIBRARIES = ("libcrypt.so.1", "libcrypt.so.2", None)


def is_usable(hash_text: str) -> bool:
    """Is this a hash of a scheme that is taken?"""
    return _match_usable(hash_text) is not None


def fits(password: str, hash_text: str) -> bool:
    """
    Compare in constant time.

    Args:
        password: Without NUL.

    Raises:
        OSError: This system has no crypt(3).
    """
    if not is_usable(hash_text):
        return False
    data = ctypes.create_string_buffer(_DATA_BYTES)
    try:
        computed = _crypt_r()(password.encode(), hash_text.encode("ascii"), data)
    finally:
        ctypes.memset(data, 0, _DATA_BYTES)  # some implementations leave the password there
    return computed is not None and hmac.compare_digest(computed, hash_text.encode("ascii"))


@cache
def _crypt_r() -> Callable[[bytes, bytes, ctypes.Array[ctypes.c_char]], bytes | None]:
    for name in _LIBRARIES:
        try:
            function = ctypes.CDLL(name).crypt_r
        except (OSError, AttributeError):
            continue
        function.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)
        function.restype = ctypes.c_char_p
        return function
    raise OSError("this system has no libcrypt")
