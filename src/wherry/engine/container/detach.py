"""The keys that leave a container running and take its terminal away: ctrl-p ctrl-q, or others."""

from __future__ import annotations

from wherry.engine.errors import BadParameter

DEFAULT = bytes((16, 17))  # ctrl-p, ctrl-q


def parse(text: str) -> bytes:
    """The bytes of ``ctrl-p,ctrl-q`` or ``a,b``; the default for an empty text.

    Raises:
        BadParameter: a key is none that a terminal can send.
    """
    if not text:
        return DEFAULT
    keys = bytearray()
    for key in text.split(","):
        if len(key) == 1 and key.isascii():
            keys.append(ord(key))
            continue
        letter = key.removeprefix("ctrl-").lower()
        if not key.startswith("ctrl-") or len(letter) != 1 or not "@" <= letter.upper() <= "_":
            raise BadParameter(f"Invalid detach keys ({text}) provided")
        keys.append(ord(letter.upper()) - 64)
    return bytes(keys)


class DetachFilter:
    """Passes what is typed, but for the detach sequence, which it swallows and reports.

    The beginning of the sequence is held back until the next key tells what it was.
    """

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._matched = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What to pass on, and whether the sequence is complete; the rest is dropped then."""
        passed = bytearray()
        for byte in data:
            if byte == self._keys[self._matched]:
                self._matched += 1
                if self._matched == len(self._keys):
                    self._matched = 0
                    return bytes(passed), True
                continue
            passed += self._keys[: self._matched]
            self._matched = 0
            if byte == self._keys[0]:
                self._matched = 1
            else:
                passed.append(byte)
        return bytes(passed), False
