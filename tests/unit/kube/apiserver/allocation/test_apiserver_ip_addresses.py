"""IPAddresses and ServiceCIDRs as the server keeps them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from apiserver_harness import API, config, service

from wherry.kube.api.errors import StatusError
from wherry.kube.apiserver.server import SELF, APIServer
from wherry.kube.store.sqlite import SQLiteStore
from wherry.kube.store.types import StoreUnavailable

ADDRESSES = "/apis/networking.k8s.io/v1/ipaddresses"
RANGES = "/apis/networking.k8s.io/v1/servicecidrs"
Object = dict[str, Any]


async def named(api: API) -> dict[str, str]:
    """Whose each address is."""
    found = await api("GET", ADDRESSES)
    parents = ((o["metadata"]["name"], o["spec"]["parentRef"]) for o in found["items"])
    return {name: f"{parent['namespace']}/{parent['name']}" for name, parent in parents}


async def until(what: Callable[[], Any], wanted: Any) -> None:
    """Wait until asking gives what is wanted."""
    async with asyncio.timeout(60):
        while await what() != wanted:  # noqa: ASYNC110 - the server says it to nobody
            await asyncio.sleep(0.01)


def wide(name: str, *cidrs: str) -> Object:
    return {"metadata": {"name": name}, "spec": {"cidrs": list(cidrs)}}


@pytest.fixture
async def both(store: SQLiteStore, tmp_path: Path) -> AsyncIterator[API]:
    """A cluster whose services have IPv4 and IPv6."""
    server = APIServer(config(tmp_path, service_cidr="10.96.0.0/24,fd00:9::/112"), store)
    await server.open()
    yield API(server.transport(SELF))
    await server.close()


async def test_each_address_of_a_service_has_its_ip_address(both: API) -> None:
    assert await named(both) == {"10.96.0.1": "default/kubernetes"}
    made = await both("POST", "services", service(ipFamilyPolicy="RequireDualStack"))
    four, six = made["spec"]["clusterIPs"]
    assert await named(both) == {
        "10.96.0.1": "default/kubernetes",
        four: "default/web",
        six: "default/web",
    }
    found = await both("GET", f"{ADDRESSES}/{six}")
    assert found["metadata"]["labels"] == {
        "ipaddress.kubernetes.io/ip-family": "IPv6",
        "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
    }
    parent = {"resource": "services", "namespace": "default", "name": "web"}
    assert found["spec"] == {"parentRef": parent}
    await both.merge("services/web", {"spec": {"ipFamilyPolicy": "SingleStack"}})
    assert await named(both) == {"10.96.0.1": "default/kubernetes", four: "default/web"}
    external = {"spec": {"type": "ExternalName", "externalName": "example.com"}}
    await both.merge("services/web", external)
    assert await named(both) == {"10.96.0.1": "default/kubernetes"}
    await both.merge("services/web", {"spec": {"type": "ClusterIP", "externalName": None}})
    assert "default/web" in (await named(both)).values()
    await both("DELETE", "services/web")
    assert await named(both) == {"10.96.0.1": "default/kubernetes"}


async def test_an_ip_address_has_the_canonical_name(both: API) -> None:
    await both("POST", "services", service(clusterIP="fd00:9:0::0007"))
    assert (await named(both))["fd00:9::7"] == "default/web"


async def test_a_service_behind_a_finalizer_keeps_its_address_until_it_goes(api: API) -> None:
    held = service(clusterIP="10.96.0.7")
    held["metadata"]["finalizers"] = ["example.com/hold"]
    await api("POST", "services", held)
    await api("DELETE", "services/web")
    assert (await named(api))["10.96.0.7"] == "default/web"
    with pytest.raises(StatusError, match="provided IP is already allocated"):
        await api("POST", "services", service("other", clusterIP="10.96.0.7"))
    await api.merge("services/web", {"metadata": {"finalizers": None}})
    assert "10.96.0.7" not in await named(api)
    await api("POST", "services", service("other", clusterIP="10.96.0.7"))


async def test_what_is_not_stored_leaves_no_ip_address(api: API) -> None:
    before = await named(api)
    await api("POST", "services", service("dry"), dryRun="All")
    with pytest.raises(StatusError, match="provided IP is already"):
        await api("POST", "services", service("taken", clusterIP="10.96.0.1"))
    with pytest.raises(StatusError, match="already exists"):
        await api("POST", "services", service("kubernetes"))
    assert await named(api) == before


async def test_an_address_that_somebody_named_is_not_given(api: API) -> None:
    body = {
        "metadata": {"name": "10.96.0.7"},
        "spec": {"parentRef": {"group": "example.com", "resource": "things", "name": "t"}},
    }
    await api("POST", ADDRESSES, body)
    with pytest.raises(StatusError, match="provided IP is already allocated"):
        await api("POST", "services", service(clusterIP="10.96.0.7"))
    await api("DELETE", f"{ADDRESSES}/10.96.0.7")
    await api("POST", "services", service(clusterIP="10.96.0.7"))


async def test_a_removed_ip_address_comes_back(api: API) -> None:
    await api("POST", "services", service(clusterIP="10.96.0.7"))
    await api("DELETE", f"{ADDRESSES}/10.96.0.7")

    async def whose() -> str | None:
        return (await named(api)).get("10.96.0.7")

    await until(whose, "default/web")
    assert "ClusterIPNotAllocated" in await reasons(api)


async def reasons(api: API, *, count: int = 1) -> set[str]:
    """What was told of Services and addresses, as soon as there is as much."""
    async with asyncio.timeout(60):
        while True:
            found = (await api("GET", "events"))["items"]
            told = {o["reason"] for o in found if "IP" in o["reason"]}
            if len(told) >= count:
                return told
            await asyncio.sleep(0.01)


async def test_ip_addresses_of_ours_that_nobody_has_go(api: API) -> None:
    labels = {
        "ipaddress.kubernetes.io/ip-family": "IPv4",
        "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
    }
    parents = {
        "10.96.0.50": {"resource": "services", "namespace": "default", "name": "nobody"},
        "10.96.0.51": {"group": "example.com", "resource": "things", "name": "t"},
        "10.96.0.52": {"resource": "services", "namespace": "default", "name": "kubernetes"},
    }
    for name, parent in parents.items():
        body = {"metadata": {"name": name, "labels": labels}, "spec": {"parentRef": parent}}
        await api("POST", ADDRESSES, body)
    theirs = {"metadata": {"name": "192.0.2.7"}, "spec": {"parentRef": parents["10.96.0.51"]}}
    await api("POST", ADDRESSES, theirs)

    async def present() -> set[str]:
        return {o["metadata"]["name"] for o in (await api("GET", ADDRESSES))["items"]}

    await until(present, {"10.96.0.1", "192.0.2.7"})
    assert await reasons(api, count=2) == {"IPAddressNotAllocated", "IPAddressWrongReference"}


async def test_what_an_older_server_stored_gets_its_ip_address(
    store: SQLiteStore, tmp_path: Path
) -> None:
    first = APIServer(config(tmp_path), store)
    await first.open()
    await API(first.transport(SELF))("POST", "services", service(clusterIP="10.96.0.7"))
    await first.close()
    for kv in (await store.range("/registry/ipaddresses/"))[0]:
        await store.delete(kv.key)
    second = APIServer(config(tmp_path), store)
    await second.open()
    api = API(second.transport(SELF))
    with pytest.raises(StatusError, match="provided IP is already allocated"):
        await api("POST", "services", service("b", clusterIP="10.96.0.7"))
    wanted = {"10.96.0.1": "default/kubernetes", "10.96.0.7": "default/web"}
    await until(lambda: named(api), wanted)
    await second.close()


class Failing(SQLiteStore):
    """Fails the writes of Services when it is told to."""

    fails = False

    async def create(self, key: str, *rest: Any, **more: Any) -> int:
        if self.fails and "/services/" in key:
            raise StoreUnavailable("no space")
        return await super().create(key, *rest, **more)


async def test_a_write_that_fails_leaks_nothing(tmp_path: Path) -> None:
    store = Failing(tmp_path / "state.db")
    server = APIServer(config(tmp_path), store)
    await server.open()
    api = API(server.transport(SELF))
    store.fails = True
    for _ in range(3):
        with pytest.raises(StatusError, match="no space"):
            await api("POST", "services", service(clusterIP="10.96.0.7"))
    store.fails = False
    assert await named(api) == {"10.96.0.1": "default/kubernetes"}
    await api("POST", "services", service(clusterIP="10.96.0.7"))
    await server.close()
    await store.close()


async def test_a_further_range_is_used_when_the_first_is_full(
    store: SQLiteStore, tmp_path: Path
) -> None:
    server = APIServer(config(tmp_path, service_cidr="10.96.0.0/29"), store)
    await server.open()
    api = API(server.transport(SELF))
    for number in range(5):
        await api("POST", "services", service(f"s{number}"))
    with pytest.raises(StatusError, match="range is full"):
        await api("POST", "services", service())
    with pytest.raises(StatusError, match=r"The range of valid IPs is 10.96.0.0/29"):
        await api("POST", "services", service(clusterIP="10.97.0.9"))
    await api("POST", RANGES, wide("more", "10.97.0.0/28", "fd00:9::/112"))
    made = await api("POST", "services", service())
    assert made["spec"]["clusterIP"].startswith("10.97.0.")
    free = "10.97.0.9" if made["spec"]["clusterIP"] != "10.97.0.9" else "10.97.0.10"
    await api("POST", "services", service("asked", clusterIP=free))
    with pytest.raises(StatusError, match=r"valid IPs is 10.96.0.0/29, 10.97.0.0/28"):
        await api("POST", "services", service("edge", clusterIP="10.97.0.15"))
    not_ready = {"type": "Ready", "status": "False", "reason": "Terminating", "message": ""}
    not_ready["lastTransitionTime"] = "2026-01-01T00:00:00Z"
    found = await api("GET", f"{RANGES}/more")
    await api("PUT", f"{RANGES}/more/status", {**found, "status": {"conditions": [not_ready]}})
    with pytest.raises(StatusError, match="range is full"):
        await api("POST", "services", service("late"))
    await api("DELETE", "services/s0")
    assert (await api("POST", "services", service("late")))["spec"]["clusterIP"] < "10.97"
    await server.close()


async def test_a_service_whose_range_is_gone_is_told(api: API) -> None:
    await api("POST", RANGES, wide("more", "10.97.0.0/28"))
    await api("POST", "services", service(clusterIP="10.97.0.9"))
    await api("DELETE", f"{RANGES}/more")
    assert await reasons(api) == {"ClusterIPOutOfRange"}


async def test_the_default_range_gets_a_second_family_and_nothing_else(
    store: SQLiteStore, tmp_path: Path
) -> None:
    for cidrs, wanted in (
        ("10.96.0.0/24", ["10.96.0.0/24"]),
        ("10.96.0.0/24,fd00:9::/112", ["10.96.0.0/24", "fd00:9::/112"]),
        ("10.98.0.0/24,fd00:9::/112", ["10.96.0.0/24", "fd00:9::/112"]),
    ):
        server = APIServer(config(tmp_path, service_cidr=cidrs), store)
        await server.open()
        found = await API(server.transport(SELF))("GET", f"{RANGES}/kubernetes")
        assert found["spec"]["cidrs"] == wanted
        await server.close()


@pytest.mark.parametrize(
    ("cidrs", "why"),
    [
        ([], "spec.cidrs: Required value: at least one CIDR required"),
        (["10.97.0.1/24"], "must not have bits set beyond the prefix length"),
        (["10.97.0.0/024"], "must not have leading 0s in IP or prefix length"),
        (["010.97.0.0/24"], "must not have leading 0s in IP or prefix length"),
        (["fd00:9:0::/112"], r'must be in canonical form \("fd00:9::/112"\)'),
        (["::ffff:10.0.0.0/104"], "must not have an IPv4-mapped IPv6 address"),
        (["10.97.0.0"], "must be a valid CIDR value"),
        (["10.97.0.0/33"], "must be a valid CIDR value"),
        (["nonsense/8"], "must be a valid CIDR value"),
        (["10.97.0.0/24", "10.98.0.0/24"], "no more than one IP for each IP family"),
        (["10.97.0.0/24", "fd00::/112", "fd01::/112"], "may only hold up to 2 values"),
    ],
)
async def test_a_wrong_range_is_refused(api: API, cidrs: list[str], why: str) -> None:
    with pytest.raises(StatusError, match=why) as refused:
        await api("POST", RANGES, wide("more", *cidrs))
    assert refused.value.code == 422


async def test_of_a_range_changes_only_that_it_gets_a_second_family(api: API) -> None:
    await api("POST", RANGES, wide("more", "10.97.0.0/24"))  # overlapping others is no fault
    await api("POST", RANGES, wide("same", "10.97.0.0/16"))
    for cidrs in (["10.98.0.0/24"], ["10.98.0.0/24", "fd00::/112"], []):
        with pytest.raises(StatusError, match=r"field is immutable|at least one CIDR"):
            await api.merge(f"{RANGES}/more", {"spec": {"cidrs": cidrs}})
    both = ["10.97.0.0/24", "fd00::/112"]
    changed = await api.merge(f"{RANGES}/more", {"spec": {"cidrs": both}})
    assert changed["spec"]["cidrs"] == both
    with pytest.raises(StatusError, match="field is immutable"):
        await api.merge(f"{RANGES}/more", {"spec": {"cidrs": both[:1]}})


async def test_servers_on_one_store_never_give_an_address_twice(
    store: SQLiteStore, tmp_path: Path
) -> None:
    """Both know what is taken only from the store's events, as servers on an etcd do."""
    servers = [APIServer(config(tmp_path, service_cidr="10.96.0.0/26"), store) for _ in range(2)]
    for server in servers:
        await server.open()
    apis = itertools.cycle(API(server.transport(SELF)) for server in servers)
    done = await asyncio.gather(
        *(next(apis)("POST", "services", service(f"s{n}")) for n in range(70)),
        return_exceptions=True,
    )
    made = [o["spec"]["clusterIP"] for o in done if isinstance(o, dict)]
    assert len(set(made)) == len(made) == 61
    assert all(isinstance(o, dict) or "range is full" in str(o) for o in done)
    for server in servers:
        await server.close()


async def test_validating_admission_judges_what_was_allocated(api: API) -> None:
    policies = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolic"
    expression = "object.spec.ports.all(p, p.nodePort >= 30000) && object.spec.clusterIP != ''"
    rule = {
        "apiGroups": [""],
        "apiVersions": ["v1"],
        "resources": ["services"],
        "operations": ["CREATE", "UPDATE"],
    }
    policy = {
        "metadata": {"name": "allocated"},
        "spec": {
            "matchConstraints": {"resourceRules": [rule]},
            "validations": [
                {"expression": expression},
                {"expression": "object.metadata.name != 'denied'"},
            ],
        },
    }
    await api("POST", f"{policies}ies", policy)
    binding = {
        "metadata": {"name": "allocated"},
        "spec": {"policyName": "allocated", "validationActions": ["Deny"]},
    }
    await api("POST", f"{policies}ybindings", binding)
    made = await api("POST", "services", service(type="NodePort"))
    with pytest.raises(StatusError, match="denied"):
        await api("POST", "services", service("denied", type="NodePort", clusterIP="10.96.0.7"))
    await api("POST", "services", service("other", type="NodePort", clusterIP="10.96.0.7"))
    with pytest.raises(StatusError, match="nodePort"):
        await api("POST", "services", service("third"))
    assert made["spec"]["ports"][0]["nodePort"] >= 30000
    assert sorted((await named(api)).values()) == [
        "default/kubernetes",
        "default/other",
        "default/web",
    ]
