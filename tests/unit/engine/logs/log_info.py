"""A container as the drivers see it."""

from pathlib import Path

from wherry.engine.logs.info import Info


def info(config=None, path=Path("/nowhere"), **fields):
    values = {
        "id": "0123456789abcdef" * 4,
        "name": "web",
        "image_id": "sha256:" + "ab" * 32,
        "image_name": "busybox:latest",
        "entrypoint": "sh",
        "args": ["-c", "true"],
        "env": ["A=1", "B=2=3", "C"],
        "labels": {"team": "x", "tier": "y"},
    }
    return Info(config=config or {}, path=path, **(values | fields))
