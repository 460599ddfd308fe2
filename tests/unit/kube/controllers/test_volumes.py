from __future__ import annotations

from typing import Any

import pytest
from cluster import Cluster
from hypothesis import given
from hypothesis import strategies as st

from wherry.kube.api import meta
from wherry.kube.api.resources import (
    EVENTS,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    STORAGE_CLASSES,
)
from wherry.kube.api.volume_matching import find_volume, requested, size
from wherry.kube.client.transport import Object
from wherry.kube.controllers.volumes.binding import decide_claim, decide_volume
from wherry.kube.controllers.volumes.local_path import PROVISIONER, is_due, make_volume
from wherry.kube.controllers.volumes.scrubbing import make_pod, refusal

BINDER = "persistentvolume-binder-controller"


def claim(storage: str = "1Gi", class_name: str = "", **how: Any) -> Object:
    spec = {
        "accessModes": how.get("modes", ["ReadWriteOnce"]),
        "resources": {"requests": {"storage": storage}},
        "storageClassName": class_name,
        **how.get("spec", {}),
    }
    metadata = {"name": how.get("name", "c"), "namespace": "default", "uid": "c-uid"}
    metadata["annotations"] = how.get("annotations", {})
    return {"metadata": metadata, "spec": spec, "status": how.get("status", {})}


def volume(name: str = "v", storage: str = "1Gi", class_name: str = "", **how: Any) -> Object:
    spec = {
        "capacity": {"storage": storage},
        "accessModes": how.get("modes", ["ReadWriteOnce"]),
        "persistentVolumeReclaimPolicy": how.get("policy", "Retain"),
        "storageClassName": class_name,
        "hostPath": {"path": "/tmp/data"},
        **how.get("spec", {}),
    }
    metadata = {"name": name, "uid": name, "labels": how.get("labels", {})}
    metadata["annotations"] = how.get("annotations", {})
    return {"metadata": metadata, "spec": spec, "status": {"phase": how.get("phase", "Available")}}


def storage_class(provisioner: str = PROVISIONER, mode: str = "WaitForFirstConsumer") -> Object:
    return {
        "metadata": {"name": "standard"},
        "provisioner": provisioner,
        "volumeBindingMode": mode,
        "reclaimPolicy": "Delete",
    }


def chosen(claim: Object, *volumes: Object, **how: Any) -> str | None:
    found = find_volume(claim, volumes, **how)
    return meta.name(found) if found else None


REF = {"name": "c", "namespace": "default"}


@pytest.mark.parametrize(
    "unfit",
    [
        volume(storage="500Mi"),
        volume(class_name="fast"),
        volume(modes=["ReadOnlyMany"]),
        volume(phase="Released"),
        volume(spec={"volumeMode": "Block"}),
        volume(spec={"claimRef": {"name": "other", "namespace": "default"}}),
        volume(spec={"volumeAttributesClassName": "gold"}),
    ],
)
def test_what_does_not_fit_is_not_taken(unfit: Object):
    assert chosen(claim(), unfit) is None


def test_the_smallest_that_fits_is_taken_but_a_reserved_one_first():
    big, small = volume("big", "5Gi"), volume("small", "2Gi")
    assert chosen(claim(), big, small) == "small"
    assert chosen(claim(), big, small, taken={"small"}) == "big"
    mine = volume("mine", "9Gi", spec={"claimRef": REF})
    assert chosen(claim(), big, small, mine) == "mine"
    labelled = volume("l", labels={"tier": "db"})
    selecting = claim(spec={"selector": {"matchLabels": {"tier": "db"}}})
    assert chosen(selecting, small, labelled) == "l"


def test_a_node_limits_the_choice():
    term = {"matchExpressions": [{"key": "host", "operator": "In", "values": ["a"]}]}
    local = volume(spec={"nodeAffinity": {"required": {"nodeSelectorTerms": [term]}}})
    node = {"metadata": {"name": "n", "labels": {"host": "a"}}}
    assert chosen(claim(), local, node=node, delayed=True) == "v"
    node["metadata"]["labels"]["host"] = "b"
    assert chosen(claim(), local, node=node, delayed=True) is None
    assert chosen(claim(), local, delayed=True) is None


SIZES = st.lists(st.tuples(st.integers(1, 9), st.booleans()), max_size=6)


@given(st.integers(1, 9), SIZES)
def test_what_is_taken_is_free_large_enough_and_the_least_of_such(wanted: int, sizes: list):
    volumes = [
        volume(str(n), f"{size}Gi", phase="Available" if free else "Bound")
        for n, (size, free) in enumerate(sizes)
    ]
    found = find_volume(claim(f"{wanted}Gi"), volumes)
    fitting = [size for size, free in sizes if free and size >= wanted]
    assert (found is None) == (not fitting)
    if found is not None:
        assert size(found) == min(fitting) * 2**30 * 1000 >= requested(claim(f"{wanted}Gi"))


def decided(claim: Object, *volumes: Object, **how: Any):
    named = {meta.name(v): v for v in volumes}
    return decide_claim(
        claim,
        volumes,
        named.get(claim["spec"].get("volumeName") or ""),
        how.get("storage_class"),
        how.get("pods", ()),
    )


def test_a_claim_without_a_volume_says_what_it_waits_for():
    (event,) = decided(claim()).events
    assert event[1:] == (
        "FailedBinding",
        "no persistent volumes available for this claim and no storage class is set",
    )
    waiting = decided(claim(class_name="standard"), storage_class=storage_class())
    assert waiting.events[0][1] == "WaitForFirstConsumer" and not waiting.provision
    pod = {"metadata": {"name": "p"}}
    waiting = decided(claim(class_name="standard"), storage_class=storage_class(), pods=[pod])
    assert waiting.events[0][1:] == ("WaitForPodScheduled", "waiting for pod p to be scheduled")
    annotations = {"volume.kubernetes.io/selected-node": "n"}
    ready = claim(class_name="standard", annotations=annotations)
    assert decided(ready, storage_class=storage_class()).provision
    missing = decided(claim(class_name="gone"))
    assert missing.events[0][2] == 'storageclass.storage.k8s.io "gone" not found'


def test_a_volume_asked_for_by_name():
    asking = claim(spec={"volumeName": "v"})
    assert decided(asking, volume()).bind
    assert decided(asking).phase == "Pending"
    small = decided(asking, volume(storage="1Mi"))
    assert small.events[0][2] == 'Cannot bind to requested volume "v": requested PV is too small'
    other = volume(spec={"claimRef": {"name": "x", "namespace": "default", "uid": "x"}})
    assert "already bound to a different claim" in decided(asking, other).events[0][2]


def test_a_bound_claim_that_lost_its_volume():
    bound = claim(spec={"volumeName": "v"}, annotations={"pv.kubernetes.io/bind-completed": "yes"})
    lost = decided(bound)
    assert lost.phase == "Lost"
    assert lost.events[0][2] == (
        "Bound claim has lost its PersistentVolume. Data on the volume is lost!"
    )
    bound["status"] = {"phase": "Lost"}
    assert decided(bound).events == []


def test_what_becomes_of_a_volume():
    assert decide_volume(volume(), None).phase == "Available"
    assert decide_volume(volume(spec={"claimRef": REF}), None).phase == "Available"
    held = {"claimRef": {**REF, "uid": "c-uid"}}
    released = decide_volume(volume(spec=held), None)
    assert (released.phase, released.reclaim) == ("Released", True)
    mine = claim(spec={"volumeName": "v"})
    assert decide_volume(volume(spec=held), mine).phase == "Bound"
    elsewhere = claim(spec={"volumeName": "w"})
    assert decide_volume(volume(spec=held), elsewhere).unbind
    again = {**mine, "metadata": {**mine["metadata"], "uid": "new"}}
    assert decide_volume(volume(spec=held), again).reclaim


def test_what_may_be_scrubbed():
    assert refusal(volume(), remove=True) == ""
    host = volume(spec={"hostPath": {"path": "/etc"}})
    assert refusal(host, remove=False) == ""
    assert refusal(host, remove=True) == (
        "host_path deleter only supports /tmp/.+ but received provided /etc"
    )
    sly = volume(spec={"hostPath": {"path": "/tmp/../etc"}})
    assert refusal(sly, remove=True)
    ours = volume(annotations={"pv.kubernetes.io/provisioned-by": PROVISIONER})
    ours["spec"]["hostPath"]["path"] = "/var/lib/x/pvc-1"
    assert refusal(ours, remove=True) == ""
    pod = make_pod(ours, remove=True)
    assert pod["spec"]["volumes"][0]["hostPath"] == {"path": "/var/lib/x"}
    assert pod["spec"]["containers"][0]["command"][-1] == "/scrub/pvc-1"


def test_a_directory_on_the_chosen_node():
    annotations = {
        "volume.kubernetes.io/selected-node": "n",
        "volume.kubernetes.io/storage-provisioner": PROVISIONER,
    }
    asked = claim(class_name="standard", annotations=annotations)
    assert is_due(asked, storage_class())
    assert not is_due(claim(class_name="standard"), storage_class())
    node = {"metadata": {"name": "n", "labels": {"kubernetes.io/hostname": "host"}}}
    made = make_volume(asked, storage_class(), node, "/data")
    assert made["spec"]["hostPath"]["path"] == "/data/pvc-c-uid_default_c"
    assert made["spec"]["claimRef"]["uid"] == "c-uid"


async def test_claims_and_volumes_find_each_other_and_part():
    async with Cluster(BINDER, kubelet=False) as cluster:
        api, client = cluster.api, cluster.client
        await client.create(PERSISTENT_VOLUMES, volume("v1", policy="Recycle"))
        await client.create(PERSISTENT_VOLUME_CLAIMS, claim(name="a"))
        await client.create(PERSISTENT_VOLUME_CLAIMS, claim(name="b"))

        def phase(name: str) -> str:
            found = api.get(PERSISTENT_VOLUME_CLAIMS, name, "default")
            return ((found or {}).get("status") or {}).get("phase", "")

        await cluster.until(lambda: {phase("a"), phase("b")} == {"Bound", "Pending"})
        first = "a" if phase("a") == "Bound" else "b"
        second = "b" if first == "a" else "a"
        found = api.get(PERSISTENT_VOLUMES, "v1")
        assert found["spec"]["claimRef"]["name"] == first
        assert found["status"]["phase"] == "Bound"
        await client.delete(PERSISTENT_VOLUME_CLAIMS, first, "default")
        await cluster.until(lambda: api.find(PODS))
        (pod,) = api.find(PODS)
        assert meta.name(pod) == "recycler-for-v1"
        done = {"status": {"phase": "Succeeded"}}
        await client.patch(PODS, meta.name(pod), done, "kube-system", subresource="status")
        await cluster.until(lambda: phase(second) == "Bound")
        told = {"RecyclerPod", "VolumeRecycled", "FailedBinding"}
        await cluster.until(lambda: told <= {e["reason"] for e in api.find(EVENTS)})


async def test_a_provisioned_volume_goes_with_its_claim():
    async with Cluster(BINDER, "local-path-provisioner", kubelet=False) as cluster:
        api, client = cluster.api, cluster.client
        node = {"metadata": {"name": "n", "labels": {"kubernetes.io/hostname": "n"}}}
        await client.create(NODES, node)
        await client.create(STORAGE_CLASSES, storage_class())
        await client.create(PERSISTENT_VOLUME_CLAIMS, claim(class_name="standard"))
        await cluster.settle()
        assert not api.find(PERSISTENT_VOLUMES)
        selected = {"metadata": {"annotations": {"volume.kubernetes.io/selected-node": "n"}}}
        await client.patch(PERSISTENT_VOLUME_CLAIMS, "c", selected, "default")
        await cluster.until(
            lambda: (
                (api.get(PERSISTENT_VOLUME_CLAIMS, "c", "default").get("status") or {}).get("phase")
                == "Bound"
            )
        )
        (made,) = api.find(PERSISTENT_VOLUMES)
        assert made["status"]["phase"] == "Bound"
        bigger = {"spec": {"resources": {"requests": {"storage": "2Gi"}}}}
        await client.patch(PERSISTENT_VOLUME_CLAIMS, "c", bigger, "default")
        await cluster.until(
            lambda: api.find(PERSISTENT_VOLUMES)[0]["spec"]["capacity"]["storage"] == "2Gi"
        )
        await client.delete(PERSISTENT_VOLUME_CLAIMS, "c", "default")
        await cluster.until(lambda: api.find(PODS))
        (pod,) = api.find(PODS)
        done = {"status": {"phase": "Succeeded"}}
        await client.patch(PODS, meta.name(pod), done, "kube-system", subresource="status")
        await cluster.until(lambda: not api.find(PERSISTENT_VOLUMES))
