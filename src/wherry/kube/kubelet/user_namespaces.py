"""Which ids of the host the users of a pod are that has ``hostUsers: false``.

Each such pod has a range of its own, written down in its directory, so that a kubelet that starts
anew gives it to nobody else; it is free when the directory has gone.
https://kubernetes.io/docs/concepts/workloads/pods/user-namespaces/
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from pathlib import Path

log = logging.getLogger(__name__)

SIZE = 65536
FILE = "userns"


class NoRange(Exception):
    """All ranges are taken."""


class UserNamespaces:
    """The ranges of one node: ``count`` of them from id ``first`` on.

    Args:
        directory: where a pod's things lie, by its uid.
        known: the uids of which something lies on the disk.
    """

    def __init__(
        self,
        first: int,
        count: int,
        *,
        directory: Callable[[str], Path],
        known: Callable[[], Iterable[str]],
    ) -> None:
        self._first = first
        self._count = count
        self._directory = directory
        self._known = known
        self._taken: dict[str, int] | None = None  # number of the range by uid

    def allocate(self, uid: str) -> tuple[int, int]:
        """The pod's range, the same whenever it is asked: first id, how many. Blocks a moment.

        Raises:
            NoRange: all are taken.
            OSError: it cannot be written down.
        """
        taken = self._taken = self._load() if self._taken is None else self._taken
        for other in [other for other in taken if not self._file(other).exists()]:
            del taken[other]
        if uid not in taken:
            used = set(taken.values())
            number = next((n for n in range(self._count) if n not in used), None)
            if number is None:
                raise NoRange(
                    "could not allocate a range of user ids for the pod: "
                    f"all {self._count} are in use"
                )
            self._write(uid, number)
            taken[uid] = number
        return self._first + taken[uid] * SIZE, SIZE

    def _file(self, uid: str) -> Path:
        return self._directory(uid) / FILE

    def _write(self, uid: str, number: int) -> None:
        mapping = [{"hostId": self._first + number * SIZE, "containerId": 0, "length": SIZE}]
        file = self._file(uid)
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        new = file.with_name(f"{FILE}.new")
        new.write_text(json.dumps({"uidMappings": mapping, "gidMappings": mapping}))
        new.replace(file)

    def _load(self) -> dict[str, int]:
        found = {}
        for uid in self._known():
            try:
                told = json.loads(self._file(uid).read_text())
                first = int(told["uidMappings"][0]["hostId"])
            except FileNotFoundError:
                continue
            except (OSError, ValueError, LookupError, TypeError) as error:
                log.warning("the user ids of pod %s cannot be read: %s", uid, error)
                continue
            found[uid] = (first - self._first) // SIZE
        return found
