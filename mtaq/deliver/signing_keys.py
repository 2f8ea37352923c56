"""Private keys by their PEM: each is read once, however many messages are signed with it.

Reading one takes 35 ms and more, so it is done in a thread, for all who wait for it together; and what is no key is
not looked at again. The last ones that were used are kept, under a digest.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict

from mtaq.mailauth.dkim_sign_key import SigningKey, UnusableKey, load_key

#: Keys that are kept, and keys that are read at a time.
MOST_KEYS = 512
READ_AT_ONCE = 2


class KeyRing:
    """Private keys, each read once for all messages that need it; the last ones that were used are kept."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, asyncio.Task[SigningKey | UnusableKey]] = OrderedDict()
        self._turns = asyncio.Semaphore(READ_AT_ONCE)

    async def key(self, pem: str) -> SigningKey:
        """
        Return the key in *pem*.

        Raises:
            UnusableKey: It is none for DKIM.
        """
        name = hashlib.sha256(pem.encode("utf-8", "replace")).digest()
        reading = self._known.get(name)
        if reading is None or (reading.done() and (reading.cancelled() or reading.exception() is not None)):
            reading = self._known[name] = asyncio.ensure_future(self._read(pem))
        self._known.move_to_end(name)
        if len(self._known) > MOST_KEYS:
            self._known.popitem(last=False)
        key = await asyncio.shield(reading)
        if isinstance(key, UnusableKey):
            raise UnusableKey(str(key))
        return key

    async def _read(self, pem: str) -> SigningKey | UnusableKey:
        async with self._turns:
            try:
                return await asyncio.to_thread(load_key, pem)
            except UnusableKey as error:
                return error
