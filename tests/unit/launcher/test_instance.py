"""Slots, names and what follows from them."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from wherry.engine.network import pools
from wherry.launcher import instance as instances
from wherry.launcher import slots, surroundings
from wherry.launcher.instance import DEFAULT_DATA_DIR, InstanceError
from wherry.launcher.ranges import Wanted


@pytest.fixture(autouse=True)
def _own_run_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instances, "RUN_ROOT", tmp_path / "run")
    monkeypatch.setattr(surroundings, "networks_in_use", list)
    monkeypatch.setattr(surroundings, "has_ipv6", lambda: True)
    monkeypatch.setattr(surroundings, "is_free", lambda port: True)


def test_the_default_directory_has_the_plain_name() -> None:
    assert instances.instance_name(DEFAULT_DATA_DIR) == "default"


def test_names_of_directories_with_equal_last_parts_differ() -> None:
    one, two = (instances.instance_name(Path(p) / "data") for p in ("/a", "/b"))
    assert one != two
    assert one.startswith("data-")


def test_an_instance_is_the_same_when_opened_again(tmp_path: Path) -> None:
    first = instances.open_or_create(tmp_path / "data")
    assert instances.open_or_create(tmp_path / "data") == first
    assert instances.find(tmp_path / "data") == first


def test_two_instances_share_no_range_port_or_name(tmp_path: Path) -> None:
    one = instances.open_or_create(tmp_path / "one")
    two = instances.open_or_create(tmp_path / "two")
    for field in ("slot", "api_port", "kubelet_port", "bridge", "nft_table", "cgroup_root"):
        assert getattr(one, field) != getattr(two, field)
    for field in ("bridge_range", "cluster_range", "service_range"):
        ranges = [ipaddress.ip_network(getattr(i, field)) for i in (one, two)]
        assert not ranges[0].overlaps(ranges[1])


def test_no_port_is_taken_by_a_kubelet_and_by_a_proxy(tmp_path: Path) -> None:
    every = [instances.open_or_create(tmp_path / str(n)) for n in range(1, pools.SLOTS)]
    first = instances.FIRST_PROXY_HEALTH
    taken = [first, 10249, 10250]
    for one in every:
        taken += [one.kubelet_port, one.proxy_health_port, one.proxy_metrics_port]
    assert len(set(taken)) == len(taken) and every[0].kubelet_port == 10251


def test_an_instance_has_its_slot_as_long_as_it_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is killed as one begins or ends leaves none whose slot another may get."""
    held = []
    save, release = instances.save, slots.release

    def saving(one: instances.Instance) -> None:
        save(one)
        held.append(slots.holder(instances.RUN_ROOT, one.slot))

    def releasing(root: Path, slot: int, data_dir: Path) -> None:
        held.append(instances.find(data_dir))
        release(root, slot, data_dir)

    monkeypatch.setattr(instances, "save", saving)
    monkeypatch.setattr(slots, "release", releasing)
    instances.forget(instances.open_or_create(tmp_path / "one"))
    assert held == [tmp_path / "one", None]


def test_a_released_slot_is_given_again(tmp_path: Path) -> None:
    one = instances.open_or_create(tmp_path / "one")
    slots.release(instances.RUN_ROOT, one.slot, one.data_dir)
    assert instances.open_or_create(tmp_path / "two").slot == one.slot


def test_a_slot_whose_range_the_machine_uses_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surroundings, "networks_in_use", lambda: ["172.18.0.0/16"])
    assert instances.open_or_create(tmp_path / "one").slot == 2


def test_a_slot_whose_port_somebody_has_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surroundings, "is_free", lambda port: port != 10251)
    assert instances.open_or_create(tmp_path / "one").slot == 2
    monkeypatch.setattr(surroundings, "is_free", lambda port: port != 7001)
    assert instances.open_or_create(tmp_path / "two", api_port=7001).slot == 1


def test_another_port_for_an_instance_that_has_one_is_refused(tmp_path: Path) -> None:
    instances.open_or_create(tmp_path / "data", api_port=7001)
    with pytest.raises(InstanceError, match="serves its API on port 7001"):
        instances.open_or_create(tmp_path / "data", api_port=7002)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "instance.json").write_text("{")
    with pytest.raises(InstanceError, match=r"instance\.json is damaged"):
        instances.find(tmp_path)


def test_a_directory_with_other_files_is_never_taken(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(InstanceError, match="holds other files"):
        instances.open_or_create(tmp_path)


def test_the_last_one_forgotten_leaves_no_file(tmp_path: Path) -> None:
    one = instances.open_or_create(tmp_path / "one")
    two = instances.open_or_create(tmp_path / "two")
    instances.forget(one)
    assert (tmp_path / "run").exists()
    instances.forget(two)
    assert list(tmp_path.iterdir()) == []


def test_an_instance_of_both_families_has_two_of_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {"IPv4": "192.0.2.7", "IPv6": "2001:db8::7"}
    monkeypatch.setattr(surroundings, "address", lambda family: found[family])
    both = instances.open_or_create(tmp_path / "data", wanted=Wanted(("IPv4", "IPv6")))
    assert both.node_ips == ("192.0.2.7", "2001:db8::7")
    for pair in (both.cluster_ranges, both.service_ranges, both.cluster_dns):
        assert [":" in one for one in pair] == [False, True]
    assert both.cluster_ranges[0] == f"10.{244 - both.slot}.0.0/16"
    assert instances.open_or_create(tmp_path / "data", wanted=Wanted(("IPv4", "IPv6"))) == both
    with pytest.raises(InstanceError, match=r"has the ranges .* `wherry down --purge` forgets it"):
        instances.open_or_create(tmp_path / "data", wanted=Wanted(("IPv6",)))
    six = instances.open_or_create(tmp_path / "six", wanted=Wanted(("IPv6",)), node_ip="fd00::9")
    assert six.node_ips == ("fd00::9",)
    assert all(":" in range for range in (*six.cluster_ranges, *six.service_ranges))


def test_a_machine_without_a_second_address_does_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surroundings, "address", lambda family: "")
    both = instances.open_or_create(tmp_path / "data", wanted=Wanted(("IPv6", "IPv4")))
    assert (both.node_ip, both.node_ips) == ("::1", ("::1",))


def test_a_machine_without_ipv6_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surroundings, "has_ipv6", lambda: False)
    with pytest.raises(InstanceError, match="this machine has no IPv6"):
        instances.open_or_create(tmp_path / "data", wanted=Wanted(("IPv4", "IPv6")))
    assert instances.open_or_create(tmp_path / "data").cluster_ranges


def test_a_range_that_somebody_wants_must_be_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surroundings, "networks_in_use", lambda: ["fd00:1:0:1::/64"])
    wanted = Wanted(("IPv6",), ("fd00:1::/56",))
    with pytest.raises(InstanceError, match="fd00:1::/56 of the cluster overlaps fd00:1:0:1::/64"):
        instances.open_or_create(tmp_path / "data", wanted=wanted)
