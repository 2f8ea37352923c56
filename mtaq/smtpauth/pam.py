"""``users://``: accounts of this system, through PAM.

The service is called ``mtaq``; where /etc/pam.d has no file of that name, PAM itself takes ``other``. Asks for
authentication and for the account (expired, locked), not for a session. PAM blocks, so it is asked in threads of its
own; its delay after a failure is switched off, because a session delays failures itself and the threads are few.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

from mtaq.model.login import Verdict

_SERVICE = b"mtaq"

# security/_pam_types.h of Linux-PAM
_SUCCESS, _CONV_ERR = 0, 19
_PROMPT_ECHO_OFF = 1
_RHOST, _FAIL_DELAY = 4, 10
_SILENT, _DISALLOW_NULL_AUTHTOK = 0x8000, 0x1
#: PERM_DENIED, AUTH_ERR, USER_UNKNOWN, MAXTRIES, NEW_AUTHTOK_REQD, ACCT_EXPIRED, CRED_EXPIRED, AUTHTOK_EXPIRED.
_REFUSALS = {6, 7, 10, 11, 12, 13, 16, 27}
_MAX_MESSAGES = 32


class _Message(ctypes.Structure):
    _fields_ = (("style", ctypes.c_int), ("text", ctypes.c_char_p))


class _Response(ctypes.Structure):
    _fields_ = (("text", ctypes.c_void_p), ("code", ctypes.c_int))


_Converse = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_int,
    ctypes.POINTER(ctypes.POINTER(_Message)),
    ctypes.POINTER(ctypes.POINTER(_Response)),
    ctypes.c_void_p,
)
_Delay = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p)
_no_delay = _Delay(lambda _status, _microseconds, _data: None)


class _Conversation(ctypes.Structure):
    _fields_ = (("converse", _Converse), ("data", ctypes.c_void_p))


class SystemUsers:
    """The accounts whose names match."""

    at_once = 1000  # the threads are the bound

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = tuple(patterns)
        self._threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="pam")

    @property
    def name(self) -> str:
        """The form."""
        return "users://" + ",".join(self._patterns)

    async def check(self, user: str, password: str, client_ip: str) -> Verdict:
        """Ask PAM in a thread. One that hangs there keeps it; when all do, nobody can be asked."""
        if not any(fnmatchcase(user, pattern) for pattern in self._patterns):
            return Verdict.REFUSED
        loop = asyncio.get_running_loop()
        status = await loop.run_in_executor(self._threads, authenticate, user, password, client_ip)
        if status == _SUCCESS:
            return Verdict.ACCEPTED
        if status in _REFUSALS:
            return Verdict.REFUSED
        raise OSError(f"PAM: {_pam().pam_strerror(None, status).decode()} ({status})")

    async def close(self) -> None:
        """Let the threads end."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def authenticate(user: str, password: str, client_ip: str) -> int:
    """
    Go through PAM's authentication and account phases and return its status. Blocks.

    Raises:
        OSError: This system has no PAM.
    """
    pam = _pam()
    converse = _Converse(_answering(password.encode()))
    conversation = _Conversation(converse, None)
    handle = ctypes.c_void_p()
    status: int = pam.pam_start(_SERVICE, user.encode(), ctypes.byref(conversation), ctypes.byref(handle))
    if status != _SUCCESS:
        return status
    try:
        pam.pam_set_item(handle, _RHOST, ctypes.c_char_p(client_ip.encode()))
        pam.pam_set_item(handle, _FAIL_DELAY, ctypes.cast(_no_delay, ctypes.c_void_p))
        status = pam.pam_authenticate(handle, _SILENT | _DISALLOW_NULL_AUTHTOK)
        if status == _SUCCESS:
            status = pam.pam_acct_mgmt(handle, _SILENT | _DISALLOW_NULL_AUTHTOK)
    finally:
        pam.pam_end(handle, status)
    return status


def _answering(password: bytes) -> Any:
    """Return a conversation that answers with *password* where the answer is not shown, else with nothing."""

    def converse(count: int, messages: Any, responses: Any, _data: Any) -> int:
        if not 0 < count <= _MAX_MESSAGES:
            return _CONV_ERR
        libc = _libc()
        array = libc.calloc(count, ctypes.sizeof(_Response))  # PAM frees it, and what is in it
        if not array:
            return _CONV_ERR
        answers = ctypes.cast(array, ctypes.POINTER(_Response))
        for number in range(count):
            if messages[number].contents.style == _PROMPT_ECHO_OFF:
                answers[number].text = libc.strdup(password)
        responses[0] = answers
        return _SUCCESS

    return converse


@cache
def _pam() -> ctypes.CDLL:
    try:
        pam = ctypes.CDLL("libpam.so.0")
    except OSError as error:
        raise OSError(errno.ENOENT, "this system has no libpam") from error
    handle = ctypes.c_void_p
    pam.pam_start.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p)
    pam.pam_set_item.argtypes = (handle, ctypes.c_int, ctypes.c_void_p)
    for function in (pam.pam_authenticate, pam.pam_acct_mgmt, pam.pam_end, pam.pam_strerror):
        function.argtypes = (handle, ctypes.c_int)
    pam.pam_strerror.restype = ctypes.c_char_p
    return pam


@cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None)
    libc.calloc.argtypes, libc.calloc.restype = (ctypes.c_size_t, ctypes.c_size_t), ctypes.c_void_p
    libc.strdup.argtypes, libc.strdup.restype = (ctypes.c_char_p,), ctypes.c_void_p
    return libc
