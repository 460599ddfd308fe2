"""A namespace of a test's own, as kubectl sees it, with few words."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from conftest import Finished, Instance, eventually

IMAGE = "hello:1"
FOREVER = "trap 'exit 0' TERM; sleep 100000 & wait"


class Space:
    """kubectl in one namespace of an instance."""

    def __init__(self, cluster: Instance, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self._environment = cluster.environment

    def __call__(self, *words: str, ok: bool = True, stdin: str | None = None) -> Finished:
        """What ``kubectl`` does with these words."""
        argv = [self.cluster.kubectl_name, "-n", self.namespace, *words]
        done = subprocess.run(
            argv,
            env=self._environment,
            input="" if stdin is None else stdin,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if ok and done.returncode != 0:
            pytest.fail(f"{' '.join(argv)} ended with {done.returncode}:\n{done.stderr}")
        return Finished(done.returncode, done.stdout, done.stderr)

    def get(self, *what: str) -> Any:
        """What ``kubectl get … -o json`` prints."""
        found = self.cluster.read(what, self.namespace)
        return found or json.loads(self("get", *what, "-o", "json").out)

    def apply(self, *objects: Any) -> None:
        body = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self("apply", "-f", "-", stdin=json.dumps(body))

    def patch(self, what: str, change: Any, *more: str) -> None:
        self("patch", what, "--type=merge", "-p", json.dumps(change), *more)

    def describe(self, *what: str) -> str:
        return self("describe", *what).out

    def pods(self, selector: str = "") -> list[Any]:
        """The pods that nobody is deleting, by name."""
        found = self.get("pods", "-l", selector)["items"] if selector else self.get("pods")["items"]
        living = [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]
        return sorted(living, key=lambda pod: str(pod["metadata"]["name"]))

    def condition(self, what: str, type: str) -> Any:
        """The condition of that type in the object's status, or an empty dict."""
        found = (self.get(what).get("status") or {}).get("conditions") or ()
        return next((c for c in found if c["type"] == type), {})

    def told(self, name: str) -> set[tuple[str, str]]:
        """Reasons and messages of the events about the object of that name."""
        found = self.get("events", f"--field-selector=involvedObject.name={name}")["items"]
        return {(event["reason"], event["message"]) for event in found}

    def reasons(self, name: str) -> set[str]:
        return {reason for reason, _ in self.told(name)}

    def wait(self, what: str, condition: str) -> None:
        self("wait", f"--for=condition={condition}", what, "--timeout=110s")

    def settled(self, what: str) -> str:
        """What ``rollout status`` says at its end."""
        return self("rollout", "status", what, "--timeout=110s").out


@contextmanager
def new_space(cluster: Instance) -> Iterator[Space]:
    """A namespace that goes with the block."""
    space = Space(cluster, f"t{uuid.uuid4().hex[:8]}")
    space("create", "namespace", space.namespace)
    try:
        yield space
    finally:
        space("delete", "namespace", space.namespace, "--wait=false", ok=False)


def shell(command: str = FOREVER, **more: Any) -> dict[str, Any]:
    """A container that runs ``command``."""
    return {"name": "c", "image": IMAGE, "command": ["sh", "-c", command], **more}


def template(app: str, command: str = FOREVER, **spec: Any) -> dict[str, Any]:
    """A pod template labelled ``app``; its containers may say when they are ready."""
    return {
        "metadata": {"labels": {"app": app}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [shell(command)],
            **spec,
        },
    }


def workload(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    """An object of apps/v1 that selects ``app: <name>``."""
    spec.setdefault("template", template(name))
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": {"app": name}}, **spec},
    }


def command_change(command: str, **more: Any) -> dict[str, Any]:
    """A merge patch that gives the one container another command."""
    return {"spec": {"template": {"spec": {"containers": [shell(command, **more)]}}}}


__all__ = ["FOREVER", "IMAGE", "Space", "command_change", "eventually", "new_space", "shell"]
