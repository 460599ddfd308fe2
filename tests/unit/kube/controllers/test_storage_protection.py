from __future__ import annotations

from typing import Any

from wherry.kube.controllers.storage_protection import (
    ClaimProtectionController,
    claims_of,
    in_use,
    released,
)

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


class Known:
    """What a watch has told of so far: a claim that is being deleted, and none of its pods."""

    def get(self, namespace: str, name: str) -> dict[str, Any]:
        gone = "2026-01-01T00:00:00Z"
        metadata = {"name": name, "namespace": namespace, "finalizers": [FINALIZER]}
        return {"metadata": {**metadata, "deletionTimestamp": gone}}

    def by_index(self, index: str, key: str) -> list[dict[str, Any]]:
        return []


class API:
    """Has these pods, and notes what is written."""

    def __init__(self, *pods: dict[str, Any]) -> None:
        self.pods, self.written = pods, list[dict[str, Any]]()

    async def list(self, resource: Any, namespace: str) -> dict[str, Any]:
        return {"items": list(self.pods)}

    async def update(self, resource: Any, o: dict[str, Any]) -> None:
        self.written.append(o)


async def sync(api: API) -> None:
    controller = ClaimProtectionController.__new__(ClaimProtectionController)
    controller.claims = controller.pods = Known()  # type: ignore[assignment]
    controller.client = api  # type: ignore[assignment]
    await controller.sync("default/data")


async def test_a_pod_of_which_no_news_has_come_holds_its_claim_as_well() -> None:
    volume = {"name": "a", "persistentVolumeClaim": {"claimName": "data"}}
    for api, written in (
        (API(pod("n1", volume)), 0),
        (API(pod("", volume)), 1),
        (API(pod("n1")), 1),
    ):
        await sync(api)
        assert len(api.written) == written
