"""Base images made on this machine, and what is built on them: there for pods at once."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest
from conftest import Instance, eventually

from ports import free_port

DOCKERFILE = """\
FROM debian:bookworm
RUN apt-get update && apt-get install -y --no-install-recommends nginx-light
RUN echo 'Hello, Docker' > /var/www/html/index.html
EXPOSE 80
CMD ["nginx", "-g", "daemon off;"]
"""


def test_busybox_is_made_from_the_machines_own(new_instance) -> None:
    instance: Instance = new_instance()
    instance.wherry("up")
    assert "busybox:latest" in instance.wherry("images", "bootstrap", "busybox").out
    assert "is there already" in instance.wherry("images", "bootstrap", "busybox").out
    assert instance.docker("run", "--rm", "busybox", "echo", "hello").out == "hello\n"
    shown = instance.docker("run", "--rm", "busybox", "id").out
    assert shown.startswith("uid=0(root) gid=0(root)")
    instance.wherry("down", "--purge", "--grace", "1")


@pytest.fixture
def packages() -> None:
    """Debian's packages, which are to be had or not."""
    try:
        urllib.request.urlopen("http://deb.debian.org/debian/dists/bookworm/Release", timeout=20)
    except OSError as error:
        pytest.skip(f"Debian's packages are out of reach: {error}")


def test_debian_is_made_from_its_packages_and_nginx_built_on_it(
    new_instance, packages: None, tmp_path: Path
) -> None:
    instance: Instance = new_instance()
    instance.wherry("up")
    assert "debian:bookworm" in instance.wherry("images", "bootstrap", "debian").out
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    built = instance.docker("build", "-t", "web:1", str(tmp_path)).out
    assert "Step 1/5 : FROM debian:bookworm" in built
    assert "Successfully tagged web:1" in built
    port = free_port()
    instance.docker("run", "-d", "-p", f"127.0.0.1:{port}:80", "web:1")

    def page() -> bool:
        try:
            answer = urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5)
        except OSError:
            return False
        return bool(answer.read() == b"Hello, Docker\n")

    eventually(page)
    # What was built is at once there for the pods.
    instance.kubectl("run", "web", "--image=web:1", "--image-pull-policy=Never")
    instance.kubectl("wait", "--for=condition=Ready", "pod/web")
    instance.wherry("down", "--purge", "--grace", "1")
