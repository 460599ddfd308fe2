"""Creates one container, for a test that kills this process in the midst of it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from wherry.runtime import capabilities
from wherry.runtime.service import Runtime
from wherry.runtime.types import ContainerSpec, ProcessSpec


async def main(tmp: Path, cgroup: str, program: str, id: str, rootfs: Path) -> None:
    runtime = Runtime(
        state_dir=tmp / "state",
        run_dir=tmp / "run",
        cgroup_root=cgroup,
        on_exit=lambda status: None,
        program=program,
    )
    await runtime.open()
    sys.stdout.write("x")
    sys.stdout.flush()
    process = ProcessSpec(("sleep", "1000"), ("PATH=/bin",), capabilities=capabilities.DEFAULT)
    await runtime.create(ContainerSpec(id=id, rootfs=rootfs, process=process), log=None)
    await asyncio.Event().wait()


asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4], Path(sys.argv[5])))
