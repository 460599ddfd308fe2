"""What the kubelet's configuration file sets: what is kept back, how many pods, how often again."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import Instance, eventually
from dnslib import QTYPE, RR, A, DNSRecord
from pods_on_node import container, first_status, make

PATIENCE = 60.0
CONFIG = """
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
maxPods: 7
systemReserved: {cpu: 200m, memory: 256Mi}
kubeReserved: {cpu: 100m, memory: 128Mi, ephemeral-storage: 1Gi}
evictionHard: {memory.available: 100Mi}
crashLoopBackOff: {maxContainerRestartPeriod: 1s}
resolvConf: DIRECTORY/resolv.conf
"""
MI = 1 << 20


@pytest.fixture(scope="module")
def resolv_conf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("config") / "resolv.conf"


@pytest.fixture(scope="module")
def configured(new_instance: Callable[[], Instance], resolv_conf: Path) -> Instance:
    file = resolv_conf.with_name("kubelet.yaml")
    file.write_text(CONFIG.replace("DIRECTORY", str(resolv_conf.parent)))
    instance = new_instance()
    instance.wherry("up", "--sample", "--kubelet-config", str(file))
    instance.kubectl("delete", "deployment,daemonset,statefulset", "--all")
    return instance


def milli(text: str) -> int:
    return int(text[:-1]) if text.endswith("m") else int(text) * 1000


def kibi(text: str) -> int:
    assert text.endswith("Ki")
    return int(text[:-2])


def test_what_is_reserved_is_not_given_to_pods(configured: Instance) -> None:
    (node,) = configured.get("nodes")["items"]
    whole, room = node["status"]["capacity"], node["status"]["allocatable"]
    assert milli(whole["cpu"]) - milli(room["cpu"]) == 300
    # Of memory also what the hard threshold of eviction keeps free.
    huge = sum(int(v[:-2]) * 1024 for k, v in whole.items() if k[:10] == "hugepages-" and v != "0")
    assert kibi(whole["memory"]) - kibi(room["memory"]) == (256 + 128 + 100) * 1024 + huge
    assert kibi(whole["ephemeral-storage"]) * 1024 - int(room["ephemeral-storage"]) == 1 << 30
    # Together pods cannot take it either: the group above them is limited.
    make(configured, "default", "any")
    eventually(lambda: first_status(configured, "default", "any").get("ready"), seconds=PATIENCE)
    uid = configured.get("pod", "any")["metadata"]["uid"]
    limit = kibi(whole["memory"]) * 1024 - (256 + 128) * MI

    def limits() -> list[int]:
        found = []
        for root, name in (("memory", "memory.limit_in_bytes"), (".", "memory.max")):
            base = Path("/sys/fs/cgroup") / root
            for group in base.glob("wherry*/kubepods"):
                if (group / f"besteffort/pod{uid}").exists() and (group / name).exists():
                    text = (group / name).read_text().strip()
                    found.append(0 if text == "max" else int(text))
        return found

    eventually(lambda: [n for n in limits() if abs(n - limit) < 1 << 16], seconds=PATIENCE)
    configured.kubectl("delete", "pod", "any", "--now")


@contextmanager
def name_server(says: str) -> Iterator[str]:
    """One on loopback that says the same address to all questions; its own address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        address = ".".join(["127", *(str(random.randint(1, 254)) for _ in range(3))])
        sock.bind((address, 53))

        def serve() -> None:
            while data := sock.recvfrom(4096):
                asked = DNSRecord.parse(data[0])
                reply = asked.reply()
                if asked.q.qtype == QTYPE.A:
                    reply.add_answer(RR(asked.q.qname, QTYPE.A, ttl=600, rdata=A(says)))
                if asked.q.qname == "end.example":
                    return
                sock.sendto(reply.pack(), data[1])

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield address
        finally:
            sock.sendto(DNSRecord.question("end.example").pack(), (address, 53))
            thread.join()


def test_the_file_that_says_whom_the_node_asks_is_followed(
    configured: Instance, resolv_conf: Path
) -> None:
    """By pods that are made with it, and by the cluster's name server with the next question."""
    service = configured.get("service", "kube-dns", "-n", "kube-system")["spec"]["clusterIP"]
    for says in ("192.0.2.1", "192.0.2.2"):
        with name_server(says) as address:
            resolv_conf.write_text(f"nameserver {address}\nsearch {address}.example\n")
            asked = DNSRecord.question("www.example.com")
            reply = DNSRecord.parse(asked.send(service, 53, timeout=PATIENCE))
            assert [str(record.rdata) for record in reply.rr] == [says]
            make(configured, "default", "asks", dnsPolicy="Default")
            eventually(
                lambda: first_status(configured, "default", "asks").get("ready"), seconds=PATIENCE
            )
            found = configured.kubectl("exec", "asks", "--", "cat", "/etc/resolv.conf").out
            assert f"nameserver {address}\n" in found and f"search {address}.example\n" in found
            configured.kubectl("delete", "pod", "asks", "--now")


def test_of_a_container_that_keeps_failing_the_last_run_is_kept(configured: Instance) -> None:
    make(configured, "default", "loops", container(command="echo run; exit 3"))
    eventually(
        lambda: first_status(configured, "default", "loops").get("restartCount", 0) >= 4,
        seconds=PATIENCE,
    )

    def few() -> bool:
        kept = configured.docker("ps", "-aq", "--filter", "name=k8s_main_loops_").out.split()
        return len(kept) <= 3  # the last, the one before, and one that is just made

    eventually(few)  # (it is made before the oldest goes)
    told = first_status(configured, "default", "loops")
    assert told["lastState"]["terminated"]["exitCode"] == 3
    before = configured.kubectl("logs", "loops", "--previous", ok=False)
    assert before.code != 0 or before.out == "run\n"
    configured.kubectl("delete", "pod", "loops", "--now")


def test_the_node_takes_no_more_pods_than_it_may(configured: Instance) -> None:
    (node,) = configured.get("nodes")["items"]
    assert node["status"]["capacity"]["pods"] == "7"
    name = node["metadata"]["name"]
    for number in range(8):
        make(configured, "default", f"p{number}", nodeName=name)

    def phases() -> list[str]:
        found = configured.get("pods", "--field-selector", f"spec.nodeName={name}", "-A")["items"]
        return [
            pod["status"]["phase"] for pod in found if "deletionTimestamp" not in pod["metadata"]
        ]

    eventually(
        lambda: phases().count("Running") == 7 and phases().count("Failed") >= 1,
        seconds=PATIENCE,
        told=lambda: str(phases()),
    )
    found = configured.get("pods", "--field-selector", "status.phase=Failed")["items"]
    assert {pod["status"]["reason"] for pod in found} == {"OutOfpods"}
    text = "Node didn't have enough resource: pods, requested: 1, used: 7, capacity: 7"
    assert all(text in pod["status"]["message"] for pod in found)
    configured.kubectl("delete", "pod", "--all", "--now")
