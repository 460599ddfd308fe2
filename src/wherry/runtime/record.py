"""What a later daemon must know to take a container up again; kept in its bundle."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from wherry.host.files import write_atomic

_NAME = "record.json"


@dataclass(frozen=True, slots=True)
class Record:
    """Written when a container has been made to the end: what has none was not."""

    pid: int  # of its first process
    cgroup: str
    stdin_once: bool
    shares_pids: bool  # its first process' end does not end the others
    command: list[str]
    rootfs: str
    remapped: bool = False  # it has a user namespace of its own; what is newer has a default

    def save(self, bundle: Path) -> None:
        """Keep it; the files of a bundle need not outlive the machine's uptime."""
        write_atomic(bundle / _NAME, json.dumps(asdict(self)).encode(), durable=False)

    @classmethod
    def load(cls, bundle: Path) -> Record | None:
        """What was kept in ``bundle``."""
        try:
            return cls(**json.loads((bundle / _NAME).read_bytes()))
        except FileNotFoundError:
            return None
