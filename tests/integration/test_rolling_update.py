"""A Deployment is updated while it is asked: no request is lost."""

from __future__ import annotations

import json

from conftest import Instance, eventually
from steady_load import Load


def web(image: str) -> str:
    """Of servers that obey SIGTERM at once, with a probe that tells when they are ready."""
    container = {
        "name": "hello",
        "image": image,
        "readinessProbe": {"httpGet": {"port": 8080, "path": "/"}, "periodSeconds": 1},
    }
    labels = {"app": "rolled"}
    return json.dumps(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "rolled"},
            "spec": {
                "replicas": 3,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
            },
        }
    )


def test_no_request_is_lost_while_a_deployment_is_updated(
    cluster: Instance, namespace: str
) -> None:
    def kubectl(*words: str, stdin: str | None = None) -> None:
        cluster.kubectl("-n", namespace, *words, stdin=stdin)

    kubectl("apply", "-f", "-", stdin=web("hello:1"))
    kubectl("rollout", "status", "deploy/rolled", "--timeout=110s")
    kubectl("expose", "deployment", "rolled", "--port=80", "--target-port=8080")
    address = cluster.get("svc", "rolled", "-n", namespace)["spec"]["clusterIP"]
    with Load(address, 80, 1) as first:
        eventually(lambda: first.answered)
    with Load(address, 80, 50) as load:
        for image in ("hello:2", "hello:1"):
            kubectl("apply", "-f", "-", stdin=web(image))
            kubectl("rollout", "status", "deploy/rolled", "--timeout=110s")
        count = load.answered
        eventually(lambda: load.answered > count + 20)
    assert load.lost == []
    assert len(load.answers) > 3  # new pods, too
    kubectl("delete", "deploy,svc", "rolled")
