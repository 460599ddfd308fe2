"""Fixtures of the tests of the runtime alone: a bench for each OCI runtime."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from runtime_bench import APPLETS, Bench

from wherry.runtime import cgroups
from wherry.runtime.rootfs import mounts_below, unmount


@pytest.fixture(scope="session")
def layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("layer")
    for name in ("bin", "tmp", "proc", "sys", "dev", "etc"):
        (root / name).mkdir()
    shutil.copy("/bin/busybox", root / "bin/busybox")
    for applet in APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/plain").write_text("no program\n")
    return root


@pytest.fixture(params=["crun", "runc"])
def program(request: pytest.FixtureRequest) -> Iterator[str]:
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    yield request.param


@pytest.fixture
async def bench(tmp_path: Path, layer: Path, program: str) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path, layer, program)
    try:
        await bench.runtime.open()
        yield bench
        await bench.runtime.close()
    finally:
        bench.runtime = bench.make()
        await bench.runtime.destroy_all(0, log=bench.log)
        for point in mounts_below(tmp_path):
            unmount(point)
    for tree in cgroups.discover().trees:
        assert not (tree / bench.name.lstrip("/")).exists()
