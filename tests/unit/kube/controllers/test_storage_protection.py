from __future__ import annotations

from typing import Any

from wherry.kube.controllers.storage_protection import claims_of, in_use, released

FINALIZER = "kubernetes.io/pvc-protection"


def pod(node: str = "", *volumes: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": "web", "namespace": "default"}
    return {"metadata": metadata, "spec": {"nodeName": node, "volumes": list(volumes)}}


def test_a_pod_uses_the_claims_it_names_and_those_made_for_it() -> None:
    named = {"name": "a", "persistentVolumeClaim": {"claimName": "data"}}
    own = {"name": "b", "ephemeral": {"volumeClaimTemplate": {}}}
    assert list(claims_of(pod("", named, own))) == ["default/data", "default/web-b"]


def test_only_a_pod_with_a_node_holds_a_claim() -> None:
    assert not in_use([pod()])
    assert in_use([pod(), pod("n1")])


def test_only_what_is_being_deleted_loses_its_finalizer() -> None:
    metadata: dict[str, Any] = {"name": "data", "finalizers": [FINALIZER, "x"]}
    assert released({"metadata": metadata}, FINALIZER) is None
    metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    freed = released({"metadata": metadata}, FINALIZER)
    assert freed is not None
    assert freed["metadata"]["finalizers"] == ["x"]
    assert released(freed, FINALIZER) is None
