"""Scripts that lead from one set of services to another."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wherry.net.service_map import Backend, Frontend, ServiceMap

WEB = Frontend("tcp", 80, "10.96.0.10")
TWO = Backend((("10.244.0.2", 8080), ("10.244.0.3", 8080)))


class Table:
    """Follows scripts as the kernel would: which elements are there."""

    def __init__(self):
        self.elements = {}
        self.scripts = []

    async def run(self, script):
        self.scripts.append(script)
        if script.startswith("table ip t\ndelete table"):
            self.elements.clear()
        for line in script.replace(",\n", ",").splitlines():
            if " element ip t " not in line:
                continue
            verb, _, _, _, container, body = line.split(" ", 5)
            for text in body.strip("{} ").split(", "):
                key, _, value = text.strip().partition(" : ")
                if verb == "add":
                    assert (container, key) not in self.elements
                    self.elements[container, key] = value
                else:
                    del self.elements[container, key]


def service_map(table):
    return ServiceMap(table, "t", service_cidr="10.96.0.0/16", pod_cidr="10.244.0.0/16")


async def test_the_first_call_replaces_the_table_and_the_next_changes_elements_only():
    table = Table()
    services = service_map(table)
    await services.apply({WEB: TWO})
    assert table.scripts[0].startswith("table ip t\ndelete table ip t\n")
    await services.apply({WEB: Backend((*TWO.endpoints, ("10.244.0.4", 8080)))})
    assert "hook" not in table.scripts[1]
    assert "10.244.0.2 . 10.244.0.2" not in table.scripts[1]


async def test_nothing_is_run_where_nothing_changed():
    table = Table()
    services = service_map(table)
    await services.apply({WEB: TWO})
    await services.apply({WEB: TWO})
    assert len(table.scripts) == 1


async def test_a_service_without_endpoints_is_refused():
    table = Table()
    await service_map(table).apply({WEB: Backend()})
    assert table.elements == {("refused", "10.96.0.10 . tcp . 80"): ""}


async def test_an_endpoint_shared_by_two_services_stays_until_the_last_is_gone():
    table = Table()
    services = service_map(table)
    other = Frontend("tcp", 81, "10.96.0.11")
    await services.apply({WEB: TWO, other: TWO})
    await services.apply({other: TWO})
    assert ("hairpin", "10.244.0.2 . 10.244.0.2") in table.elements
    await services.apply({})
    assert table.elements == {}


async def test_a_leaving_endpoint_takes_its_affinity_number_along_and_others_keep_theirs():
    table = Table()
    services = service_map(table)
    sticky = Backend(TWO.endpoints, affinity=10)
    await services.apply({WEB: sticky})
    numbers = {v: k for (c, k), v in table.elements.items() if c == "numbers"}
    await services.apply({WEB: Backend(TWO.endpoints[1:], affinity=10)})
    left = {v: k for (c, k), v in table.elements.items() if c == "numbers"}
    assert left == {"10.244.0.3 . 8080": numbers["10.244.0.3 . 8080"]}


async def test_after_a_refusal_the_table_is_made_anew():
    table = Table()
    services = service_map(table)
    await services.apply({WEB: TWO})
    good = table.run

    async def refuse(script):
        raise OSError("no")

    table.run = refuse
    with pytest.raises(OSError):
        await services.apply({})
    table.run = good
    await services.apply({})
    assert table.scripts[-1].startswith("table ip t\ndelete table")
    assert table.elements == {}


frontend_sets = st.dictionaries(
    st.builds(
        Frontend,
        st.sampled_from(["tcp", "udp"]),
        st.integers(1, 3),
        st.sampled_from(["", "10.96.0.1", "10.96.0.2"]),
    ),
    st.builds(
        Backend,
        st.lists(
            st.tuples(st.sampled_from(["10.244.0.1", "10.244.0.2"]), st.integers(1, 2)),
            unique=True,
            max_size=3,
        ).map(tuple),
        st.sampled_from([0, 10]),
        st.booleans(),
    ),
    max_size=4,
)


@settings(max_examples=150, deadline=None)
@given(st.lists(frontend_sets, min_size=1, max_size=5))
def test_any_history_ends_in_the_state_that_a_fresh_start_makes(history):
    async def play():
        table = Table()
        services = service_map(table)
        for wanted in history:
            await services.apply(wanted)
        fresh = Table()
        await service_map(fresh).apply(history[-1])
        return table, fresh

    def shape(table):
        # Affinity numbers differ from run to run; what they lead to does not.
        numbers = {k: v for (c, k), v in table.elements.items() if c == "numbers"}
        return {
            (c, "" if c == "numbers" else k, numbers.get(v, v))
            for (c, k), v in table.elements.items()
        }

    table, fresh = asyncio.run(play())
    assert shape(table) == shape(fresh)
