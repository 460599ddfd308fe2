"""The container engine beside Debian's dockerd."""

from __future__ import annotations

from benchmarks.harness import Figure, command, dockerd, timed, wherry

RUNS = 15


def _both(run: list[str], target: float, name: str, prepare: list[str] | None = None) -> Figure:
    def measure(env: dict[str, str]) -> list[float]:
        if prepare:
            command(*prepare, env=env)
        return timed(lambda: command(*run, env=env), RUNS, warm_up=2)

    with wherry() as ours:
        values = measure(ours.env)
    with dockerd() as env:
        peer = measure(env) if env else []
    return Figure(name, values, target=target, peer=peer)


def docker_run() -> list[Figure]:
    """``docker run --rm`` of ``true``."""
    run = ["docker", "run", "--rm", "hello:1", "true"]
    return [_both(run, 0.12, "docker run --rm busybox true")]


def docker_exec() -> list[Figure]:
    """``docker exec`` of ``true`` in a container that runs."""
    prepare = ["docker", "run", "-d", "--name", "target", "hello:1", "sleep", "600"]
    return [_both(["docker", "exec", "target", "true"], 0.045, "docker exec of true", prepare)]
