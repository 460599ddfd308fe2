"""What is asked of a pod."""

from __future__ import annotations

from wherry.kube.api import pods

SPEC = {
    "containers": [{"name": "app"}],
    "initContainers": [{"name": "first"}, {"name": "sidecar", "restartPolicy": "Always"}],
    "ephemeralContainers": [{"name": "debugger"}],
}


def test_all_containers_come_in_the_order_of_their_start_and_sidecars_last() -> None:
    names = [c["name"] for c in pods.all_containers(SPEC)]
    assert names == ["first", "sidecar", "app", "debugger"]
    assert [c["name"] for c in pods.lasting_containers(SPEC)] == ["app", "sidecar"]
    assert not list(pods.all_containers({"containers": None}))


def test_addresses_are_those_of_both_families_or_the_one_an_old_client_wrote() -> None:
    assert pods.addresses({"status": {"podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}}) == (
        "10.0.0.1",
        "fd00::1",
    )
    assert pods.addresses({"status": {"podIP": "10.0.0.1"}}) == ("10.0.0.1",)
    assert pods.addresses({}) == ()


def test_a_pod_that_is_being_deleted_is_terminating_until_it_has_ended() -> None:
    deleted = {"metadata": {"deletionTimestamp": "now"}, "status": {"phase": "Running"}}
    assert pods.is_terminating(deleted)
    assert not pods.is_active(deleted)
    ended = {**deleted, "status": {"phase": "Failed"}}
    assert pods.is_finished(ended)
    assert not pods.is_terminating(ended)
