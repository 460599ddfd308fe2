"""Which of two Services has an address."""

from hypothesis import given
from hypothesis import strategies as st

from wherry.kube.proxy.claims import Claims
from wherry.net.service.ports import ServicePort


def port(name, number=1, **fields):
    return ServicePort(name, "tcp", 80, f"10.96.0.{number}", **fields)


def served(claims):
    return {key[0]: kept.external_ips for key, kept in claims.all().items()}


def test_the_older_service_keeps_an_address_that_both_want_whoever_came_first():
    young = port("a/young", 1, external_ips=("192.0.2.1",))
    old = port("a/old", 2, external_ips=("192.0.2.1",))
    claims = Claims()
    claims.set("a/young", "2026-01-02", [young])
    assert served(claims)["a/young"] == ("192.0.2.1",)
    changes = claims.set("a/old", "2026-01-01", [old])
    assert changes.keys() == {young.key, old.key}
    assert served(claims) == {"a/young": (), "a/old": ("192.0.2.1",)}
    (lost,) = claims.lost("a/young")
    assert str(lost) == (
        "192.0.2.1:80 is not served for this Service: a/old, which is older, has it"
    )
    claims.set("a/old", "", [])
    assert served(claims) == {"a/young": ("192.0.2.1",)}
    assert claims.lost("a/young") == []


def test_nobody_takes_a_cluster_ip_by_naming_it_as_an_external_address():
    claims = Claims()
    claims.set("a/thief", "2026-01-01", [port("a/thief", 2, external_ips=("10.96.0.1",))])
    claims.set("a/victim", "2026-01-02", [port("a/victim", 1)])
    assert served(claims) == {"a/thief": (), "a/victim": ()}
    assert claims.lost("a/thief")


def test_other_ports_of_an_address_are_free():
    claims = Claims()
    other = ServicePort("a/b", "tcp", 81, "10.96.0.2", external_ips=("192.0.2.1",))
    claims.set("a/a", "2026-01-01", [port("a/a", 1, external_ips=("192.0.2.1",))])
    claims.set("a/b", "2026-01-02", [other])
    assert served(claims) == {"a/a": ("192.0.2.1",), "a/b": ("192.0.2.1",)}


asked = st.lists(
    st.tuples(
        st.integers(1, 4),
        st.sampled_from([(), ("192.0.2.1",), ("192.0.2.1", "192.0.2.2"), ("10.96.0.1",)]),
        st.sampled_from([0, 30080, 30081]),
        st.booleans(),
    ),
    max_size=12,
)


@given(asked)
def test_changes_add_up_to_what_a_fresh_start_finds(history):
    claims, told, last = Claims(), {}, {}
    for number, external, node_port, there in history:
        name, created = f"a/{number}", f"2026-01-0{5 - number}"
        wanted = [port(name, number, external_ips=external, node_port=node_port)] if there else []
        last[name] = (created, wanted)
        for key, now in claims.set(name, created, wanted).items():
            if now is None:
                del told[key]
            else:
                told[key] = now
    fresh = Claims()
    for name, (created, wanted) in last.items():
        fresh.set(name, created, wanted)
    assert told == claims.all() == fresh.all()
