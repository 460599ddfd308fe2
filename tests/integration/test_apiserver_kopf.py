"""An operator written with kopf: handlers, finalizers, statuses, events, and its webhooks."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from apiserver_process import Server
from apiserver_rest import Rest

pytest.importorskip("kopf")

Object = dict[str, Any]

OPERATOR = Path(__file__).with_name("kopf_operator.py")
EXAMPLES = "/apis/kopf.dev/v1/namespaces/default/kopfexamples"
MAPS = "/api/v1/namespaces/default/configmaps"
WEBHOOKS = "/apis/admissionregistration.k8s.io/v1"
MERGE = "application/merge-patch+json"
CRD: Object = {
    "metadata": {"name": "kopfexamples.kopf.dev"},
    "spec": {
        "group": "kopf.dev",
        "scope": "Namespaced",
        "names": {"plural": "kopfexamples", "singular": "kopfexample", "kind": "KopfExample"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            name: {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
                            for name in ("spec", "status")
                        },
                    }
                },
            }
        ],
    },
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    started = Server(tmp_path_factory.mktemp("server")).start()
    yield started
    started.kill()


@pytest.fixture(scope="module")
def rest(server: Server) -> Iterator[Rest]:
    """The API while the operator runs."""
    asked = Rest(server)
    asked.ok("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", CRD)
    eventually(lambda: asked("GET", EXAMPLES).code == 200)
    certificate, key = server.authority.issue("operator", "operator")
    environment = {
        **os.environ,
        "KUBECONFIG": str(server.kubeconfig()),
        "WEBHOOK_CA": str(server.authority.certificate),
        "WEBHOOK_CERT": str(certificate),
        "WEBHOOK_KEY": str(key),
    }
    log = server.directory / "operator.log"
    with log.open("w") as out:
        operator = subprocess.Popen(
            [sys.executable, "-m", "kopf", "run", "-A", "--standalone", str(OPERATOR)],
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        eventually(
            lambda: all(
                any(o.get("webhooks") for o in asked.ok("GET", f"{WEBHOOKS}/{plural}")["items"])
                for plural in ("mutatingwebhookconfigurations", "validatingwebhookconfigurations")
            ),
            lambda: log.read_text(),
        )
        yield asked
    finally:
        operator.terminate()
        operator.wait(timeout=60)


def eventually(holds: Callable[[], Any], why: Callable[[], str] = str) -> Any:
    pause = threading.Event()
    for _ in range(1200):
        if found := holds():
            return found
        pause.wait(0.05)
    raise AssertionError(f"it did not come about: {why()}")


def example(name: str, **spec: Any) -> Object:
    return {"metadata": {"name": name}, "spec": spec}


def status(rest: Rest, name: str) -> Object:
    found: Object = rest.ok("GET", f"{EXAMPLES}/{name}").get("status") or {}
    return found


def test_an_object_is_handled_from_its_creation_to_its_end(rest: Rest) -> None:
    made = rest.ok("POST", EXAMPLES, example("one", field="value"))
    child = eventually(lambda: status(rest, "one").get("created"))["child"]
    owned = rest.ok("GET", f"{MAPS}/{child}")
    assert owned["data"] == {"field": "value"}
    assert owned["metadata"]["ownerReferences"][0]["uid"] == made["metadata"]["uid"]
    present = rest.ok("GET", f"{EXAMPLES}/one")
    assert "kopf.zalando.org/KopfFinalizerMarker" in present["metadata"]["finalizers"]
    rest.ok("PATCH", f"{EXAMPLES}/one", {"spec": {"field": "other"}}, content_type=MERGE)
    eventually(lambda: status(rest, "one").get("changed") == "value to other")
    rest.ok("DELETE", f"{EXAMPLES}/one")
    eventually(lambda: rest("GET", f"{EXAMPLES}/one").code == 404)
    assert rest("GET", f"{MAPS}/one-gone").code == 200
    messages: list[str] = []

    def told() -> bool:
        events = rest.ok("GET", "/api/v1/namespaces/default/events")["items"]
        messages[:] = [e["message"] for e in events if e["involvedObject"]["name"] == "one"]
        return any("succeeded" in message for message in messages)

    eventually(told, lambda: str(messages))


def test_its_webhooks_fill_refuse_and_warn(rest: Rest) -> None:
    assert rest.ok("POST", EXAMPLES, example("filled"))["spec"] == {"field": "filled"}
    reply = rest("POST", EXAMPLES, example("bad", field="bad"))
    assert reply.code == 418
    assert reply.message.endswith("denied the request: no bad fields")
    reply = rest("POST", f"{EXAMPLES}?dryRun=All", example("odd", field="odd"))
    assert (reply.code, reply.warnings) == (201, ["that is odd"])
