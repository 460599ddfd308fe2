"""The keys that leave a container running and take its terminal away: ctrl-p ctrl-q, or others."""

from __future__ import annotations

from wherry.engine.errors import BadParameter

DEFAULT = bytes((16, 17))  # ctrl-p, ctrl-q


_NAMED = {f"ctrl-{chr(code + 64).lower()}": code for code in range(32)} | {"DEL": 127}


def parse(text: str, kind: str = "detach") -> bytes:
    """The bytes of ``ctrl-p,ctrl-q`` or ``a,b``; the default for an empty text.

    Raises:
        BadParameter: a key is none that a terminal can send; ``kind`` is what the keys are called.
    """
    if not text:
        return DEFAULT
    keys = bytearray()
    for key in text.split(","):
        if len(key) == 1 and key.isascii():
            keys.append(ord(key))
        elif key in _NAMED:
            keys.append(_NAMED[key])
        else:
            raise BadParameter(f"Invalid {kind} keys ({text}) provided")
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

    def flush(self) -> bytes:
        """At the end of the input: what was held back, as nothing will complete it."""
        held, self._matched = self._keys[: self._matched], 0
        return held
