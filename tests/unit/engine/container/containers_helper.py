"""A container to test with, made as a request would make it."""

import time
from pathlib import Path

from wherry.engine.container import create, merge, mounts, options
from wherry.engine.container.container import Container, Endpoint


def make(id="1" * 64, name="web", *, config=None, host=None, home=Path("/nonexistent")):
    full = options.decode(options.CONFIG, {"Cmd": ["true"], **(config or {})}, "")
    host_config = options.decode(options.HOST_CONFIG, host or {}, "HostConfig")
    create.normalise(host_config)
    full = merge.merge_image(full, {})
    full["Hostname"] = full["Hostname"] or id[:12]
    program, args = merge.command(full)
    return Container(
        id=id,
        name=name,
        created_at=time.time_ns(),
        image_id="sha256:" + "a" * 64,
        config=full,
        host_config=host_config,
        path=program,
        args=args,
        home=home,
        endpoints={"bridge": Endpoint("bridge")},
        mounts=[one.point for one in mounts.wanted(full, host_config)],
    )
