"""What a driver may know about the container whose log it keeps."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Info:
    """A container as the log drivers see it; ``path`` is where a file would be."""

    config: Mapping[str, str]
    path: Path
    id: str
    name: str
    image_id: str = ""
    image_name: str = ""
    entrypoint: str = ""
    args: Sequence[str] = ()
    env: Sequence[str] = ()
    labels: Mapping[str, str] = field(default_factory=dict)

    def attributes(self, rename: Callable[[str], str] = str) -> dict[str, str]:
        """The labels and environment variables that the options name, by list or by pattern.

        Raises:
            ValueError: a pattern is none.
        """
        found: dict[str, str] = {}
        variables = dict(entry.split("=", 1) for entry in self.env if "=" in entry)
        for option, values in (("labels", self.labels), ("env", variables)):
            names = self.config.get(option, "")
            for name in names.split(",") if names else ():
                if name in values:
                    found[rename(name)] = values[name]
            pattern = self.config.get(f"{option}-regex", "")
            if pattern:
                try:
                    matcher = re.compile(pattern)
                except re.error as error:
                    raise ValueError(f"error parsing regexp: {error}: `{pattern}`") from None
                found |= {rename(n): v for n, v in values.items() if matcher.search(n)}
        return found

    def tag(self, default: str = "") -> str:
        """What the option ``tag``, or else the template ``default``, makes of the container.

        Raises:
            ValueError: the template is none.
        """
        from wherry.engine.logs import template

        text = self.config.get("tag") or default
        return template.execute(text, self) if "{{" in text else text
