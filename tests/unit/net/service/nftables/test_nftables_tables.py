"""What is in the kernel leads from one set of Services to another."""

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wherry.net.nftables.elements import read_number
from wherry.net.nftables.nft import NftError
from wherry.net.service.nftables import rules
from wherry.net.service.nftables.tables import NftablesServices
from wherry.net.service.ports import ServicePort

TWO = (("10.244.0.2", 8080), ("10.244.0.3", 8080))
WEB = ServicePort("default/web", "tcp", 80, "10.96.0.10", inside=TWO)
SERVICES, PODS = ["10.96.0.0/16"], ["10.244.0.0/16"]


class Kernel:
    """Which elements and chains there are."""

    def __init__(self):
        self.elements = {}
        self.chain_names = {}
        self.scripts = []
        self.changes = []

    async def run(self, script):
        self.scripts.append(script)
        _, family, *_ = script.split()
        if "delete table" in script:
            self.elements = {p: v for p, v in self.elements.items() if p[0] != family}
            self.chain_names[family] = set()
        for line in script.splitlines():
            words = line.split()
            if words[:1] == ["chain"]:
                self.chain_names[family].add(words[1])
            elif words[:2] == ["add", "chain"]:
                self.chain_names[words[2]].add(words[4])

    def change(self, deleted, added, chains=()):
        deleted, added = list(deleted), list(added)
        self.changes.append((deleted, added))
        for chain in chains:
            self.chain_names[chain.family].add(chain.name)
        for element in deleted:
            del self.elements[element[:3] + element[4:]]
        for element in added:
            place = element[:3] + element[4:]
            assert self.elements.get(place, element.value) == element.value
            if element.container == "classes":
                assert element.value in self.chain_names[element.family]
            self.elements[place] = element.value

    def read(self, family, container):
        from wherry.net.nftables.elements import Element

        return [
            Element(f, c, key, value, end)
            for (f, c, key, end), value in self.elements.items()
            if (f, c) == (family, container)
        ]

    def chains(self, family):
        return self.chain_names.get(family, set())

    def meaning(self):
        """What is there, without numbers that differ from run to run."""
        numbers = {k: v for (f, c, k, _), v in self.elements.items() if c == "numbers"}
        classes = {(f, k): v for (f, c, k, _), v in self.elements.items() if c == "classes"}
        result = set()
        for (family, container, key, end), value in self.elements.items():
            if container in ("classes", "loopback-links"):
                continue
            if container == "numbers":
                key = b""
            elif container.endswith("choices"):
                value = numbers[value]
            elif container.endswith("services"):
                value = classes[family, value]
            result.add((family, container, key, end, value))
        return result


def process(kernel):
    return NftablesServices(kernel, "t", services=SERVICES, pods=PODS, elements=kernel)


def wanted(*ports):
    return {port.key: port for port in ports}


def held(kernel, container):
    return [key for (_, c, key, _) in kernel.elements if c == container]


async def test_the_first_start_makes_the_table_and_a_change_touches_its_own_elements_only():
    kernel = Kernel()
    services = process(kernel)
    other = replace(WEB, name="default/other", cluster_ip="10.96.0.11")
    await services.start(wanted(WEB, other))
    assert len(kernel.scripts) == 1
    three = replace(WEB, inside=(*TWO, ("10.244.0.4", 8080)))
    await services.change(wanted(three))
    deleted, added = kernel.changes[-1]
    assert len(kernel.scripts) == 1
    assert {e.container for e in deleted} == {"services"}
    assert sorted(e.container for e in added) == ["classes", "endpoints", "hairpin", "services"]


async def test_nothing_is_sent_where_nothing_changed():
    kernel = Kernel()
    services = process(kernel)
    await services.start(wanted(WEB))
    await services.change(wanted(WEB))
    assert len(kernel.changes) == 1


async def test_a_successor_takes_over_what_lies_there_and_corrects_what_is_wrong():
    kernel = Kernel()
    sticky = replace(WEB, affinity=10)
    await process(kernel).start(wanted(sticky, replace(WEB, name="a/b", cluster_ip="10.96.0.9")))
    numbers = held(kernel, "numbers")
    await process(kernel).start(wanted(sticky))
    assert len([s for s in kernel.scripts if "delete table" in s]) == 1
    deleted, added = kernel.changes[-1]
    assert not added and {e.container for e in deleted} == {"services", "endpoints"}
    assert held(kernel, "numbers") == numbers
    before = len(kernel.changes)
    await process(kernel).start(wanted(sticky))
    assert len(kernel.changes) == before


async def test_rules_of_another_version_are_not_built_upon(monkeypatch):
    kernel = Kernel()
    await process(kernel).start(wanted(WEB))
    monkeypatch.setattr(rules, "version", lambda *_: "version-new")
    await process(kernel).start(wanted(WEB))
    assert len([s for s in kernel.scripts if "delete table" in s]) == 2
    assert "version-new" in kernel.chains("ip")


async def test_an_endpoint_shared_by_two_services_stays_until_the_last_is_gone():
    kernel = Kernel()
    services = process(kernel)
    other = replace(WEB, name="default/other", cluster_ip="10.96.0.11")
    await services.start(wanted(WEB, other))
    await services.change({WEB.key: None})
    assert len(held(kernel, "hairpin")) == 2
    await services.change({other.key: None})
    assert {c for _, c, _, _ in kernel.elements} == {"classes"}


async def test_a_leaving_endpoint_takes_its_affinity_number_along_and_others_keep_theirs():
    kernel = Kernel()
    services = process(kernel)
    sticky = replace(WEB, affinity=10)
    await services.start(wanted(sticky))
    before = {v: k for (_, c, k, _), v in kernel.elements.items() if c == "numbers"}
    await services.change(wanted(replace(sticky, inside=TWO[1:])))
    ((value, key),) = {
        v: k for (_, c, k, _), v in kernel.elements.items() if c == "numbers"
    }.items()
    assert before[value] == key
    assert read_number(key) & rules.NUMBERED


async def test_the_other_family_has_its_table_as_soon_as_it_is_needed():
    kernel = Kernel()
    services = process(kernel)
    await services.start(wanted(WEB))
    assert "ip6" not in kernel.chain_names
    six = ServicePort("default/web", "tcp", 80, "fd00::a", inside=(("fd01::2", 8080),))
    await services.change(wanted(six))
    assert {f for f, *_ in kernel.elements} == {"ip", "ip6"}


async def test_after_a_refusal_the_table_is_made_anew():
    kernel = Kernel()
    services = process(kernel)
    await services.start(wanted(WEB))
    good = kernel.change

    def refuse(deleted, added, chains=()):
        raise NftError("no")

    kernel.change = refuse
    with pytest.raises(NftError):
        await services.change({WEB.key: None})
    kernel.change = good
    await services.start({})
    assert "delete table" in kernel.scripts[-1]
    assert kernel.elements == {}


endpoints = st.lists(
    st.tuples(st.sampled_from(["10.244.0.1", "10.244.0.2"]), st.integers(1, 2)),
    unique=True,
    max_size=3,
).map(tuple)
service_ports = st.builds(
    lambda number, protocol, **rest: ServicePort(
        f"default/{number}", protocol, 80, f"10.96.0.{number}", **rest
    ),
    st.integers(1, 3),
    st.sampled_from(["tcp", "udp"]),
    inside=endpoints,
    outside=endpoints,
    everywhere=endpoints,
    affinity=st.sampled_from([0, 10]),
    masquerade=st.booleans(),
    inside_elsewhere=st.booleans(),
)
histories = st.lists(
    st.lists(service_ports, max_size=5).map(
        lambda ports: {
            key: replace(port, node_port=30000 + n, balancer_ips=(f"192.0.2.{n}",))
            for n, (key, port) in enumerate(sorted({p.key: p for p in ports}.items()))
        }
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=150, deadline=None)
@given(histories, st.data())
def test_any_history_ends_in_the_state_that_a_fresh_start_makes(history, data):
    async def play():
        kernel = Kernel()
        services = process(kernel)
        await services.start(history[0])
        last = history[0]
        for now in history[1:]:
            if data.draw(st.booleans()):  # killed, and started again
                services = process(kernel)
                await services.start(now)
            else:
                gone = {key: None for key in last if key not in now}
                await services.change({**gone, **now})
            last = now
        fresh = Kernel()
        await process(fresh).start(last)
        return kernel, fresh

    kernel, fresh = asyncio.run(play())
    assert kernel.meaning() == fresh.meaning()
