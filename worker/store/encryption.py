"""Encryption of the columns that a family declares as `encrypted`, by keys from the settings.

Owns how an encrypted text looks: `encrypted:<key id>:<token>`, a Fernet token (AES-128-CBC with HMAC-SHA-256) and which
key made it. Promises that the first key encrypts and every key that is still listed decrypts, so that a key is rotated
by putting a new one in front; and that texts which were stored before encryption was switched on read as they are.
"""

import hashlib
import re
from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken

from worker.errors import Misconfigured

_ENCRYPTED = re.compile(r"encrypted:(?P<key>[0-9a-f]{8}):(?P<token>gAAAAA[A-Za-z0-9_-]+=*)")


class Cipher:
    """The keys, newest first."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = {key_id(key): Fernet(key) for key in keys}
        self._id, self._newest = next(iter(self._keys.items()))

    def encrypt(self, text: str) -> str:
        """The text under the newest key; another token each time."""
        return f"encrypted:{self._id}:{self._newest.encrypt(text.encode()).decode()}"

    def decrypt(self, stored: str) -> str:
        """What was encrypted. Raises Misconfigured where its key is not listed any more, or it was tampered with."""
        found = _ENCRYPTED.fullmatch(stored)
        if found is None:
            return stored
        key = self._keys.get(found["key"])
        if key is None:
            raise Misconfigured(
                f"a text was encrypted with the key {found['key']}, which WORKER_ENCRYPTION_KEYS does not hold"
            )
        try:
            return key.decrypt(found["token"].encode()).decode()
        except InvalidToken:
            raise Misconfigured(
                f"a text under the key {found['key']} was altered: it does not decrypt"
            ) from None


def key_id(key: str) -> str:
    """Which key it is, without saying the key."""
    return hashlib.sha256(key.encode()).hexdigest()[:8]


def cipher_of(keys: Sequence[str]) -> Cipher | None:
    """The cipher of these keys; none where encryption is off."""
    return Cipher(keys) if keys else None
