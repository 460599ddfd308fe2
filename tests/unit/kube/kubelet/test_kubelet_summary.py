"""What the kubelet tells of use: summaries, disks, rates."""

import dataclasses

from fake_runtime import FakeRuntime

from wherry.engine.cri.types import ContainerStats
from wherry.kube.kubelet import pods
from wherry.kube.kubelet.disks import Disks, PodDisk, Space
from wherry.kube.kubelet.machine import Usage, node_use, own_use
from wherry.kube.kubelet.summary import NodeFacts, Rates, summary
from wherry.kube.kubelet.view import PodRuntime
from wherry.kube.kubelet.volumes.place import Place

POD = {
    "metadata": {"name": "web", "namespace": "d", "uid": "u"},
    "spec": {
        "containers": [{"name": "main"}],
        "volumes": [
            {"name": "data", "persistentVolumeClaim": {"claimName": "claim"}},
            {"name": "tmp", "emptyDir": {}},
        ],
    },
}
LABELS = {pods.POD_UID: "u", pods.POD_NAME: "web", pods.POD_NAMESPACE: "d"}
NODE = NodeFacts("one", "then", Usage(9, 8), 0, Usage(1, 2), "then", Space(100, 50, 50), 7)


def test_processor_time_becomes_a_rate_once_there_is_something_to_compare():
    rates = Rates()
    assert rates.of("a", 100, 1.0) is None
    assert rates.of("a", 300, 3.0) == 100
    assert rates.of("a", 10, 4.0) is None  # it began anew
    rates.forget(set())
    assert rates.of("a", 20, 5.0) is None


def test_a_summary_tells_of_containers_networks_and_volumes():
    main = ContainerStats("c", {**LABELS, pods.CONTAINER_NAME: "main"}, 5, 6, started_at=10**9)
    pause = ContainerStats("s", LABELS, 1, 2, interfaces={"eth0": {"rx_bytes": 3, "tx_bytes": 4}})
    disk = PodDisk({"main": Space(9, 8, 1)}, {}, {"data": Space(9, 8, 2)}, Space(9, 8, 3))
    told = summary(NODE, [POD], [main], [pause], {"u": disk}, Rates(), time="now", clock=1.0)
    assert [c["name"] for c in told["node"]["systemContainers"]] == ["kubelet", "pods"]
    assert told["node"]["runtime"]["imageFs"]["usedBytes"] == 7
    (pod,) = told["pods"]
    assert pod["cpu"]["usageCoreNanoSeconds"] == 6
    assert pod["network"]["name"] == "eth0" and pod["network"]["rxBytes"] == 3
    assert pod["volume"][0]["pvcRef"] == {"name": "claim", "namespace": "d"}
    assert pod["ephemeral-storage"]["usedBytes"] == 3
    assert pod["containers"][0]["rootfs"]["usedBytes"] == 1
    assert pod["containers"][0]["startTime"] == "1970-01-01T00:00:01Z"


async def test_what_lasts_is_no_ephemeral_storage(tmp_path):
    data, tmp = tmp_path / "data", tmp_path / "tmp"
    for directory in (data, tmp):
        directory.mkdir()
        (directory / "file").write_bytes(b"x" * 100_000)
    disks = Disks(FakeRuntime(), tmp_path, tmp_path / "logs", 60)
    places = {"data": Place(data), "tmp": Place(tmp)}
    found = await disks.of(POD, PodRuntime("u"), places)
    assert found.volumes["data"].used >= 100_000
    assert found.ephemeral.used == found.volumes["tmp"].used
    (tmp / "more").write_bytes(b"x" * 100_000)
    assert await disks.of(POD, PodRuntime("u"), places) is found  # for a while
    disks.forget(set())
    assert (await disks.of(POD, PodRuntime("u"), places)).ephemeral.used > found.ephemeral.used


def test_this_machine_uses_something():
    whole, _free = node_use()
    assert 0 < own_use().rss < whole.usage
    assert all(value is not None for value in dataclasses.asdict(whole).values())
