"""Gathering roles over random histories: roles come, go, change labels and select each other, even
in circles. Whatever the order in which they are looked at, it comes to an end, and to the same."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from wherry.kube.client.transport import Object
from wherry.kube.controllers.cluster_role_aggregation import gathered

NAMES = ["a", "b", "c", "d", "e"]
LABELS = ["x", "y", "z"]
VERBS = ["get", "list", "watch", "delete"]


def some(values: list[str], **more: Any) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(values), unique=True, **more)


ROLES = st.fixed_dictionaries(
    {
        "name": st.sampled_from(NAMES),
        "labels": some(LABELS),
        "verbs": some(VERBS, max_size=3),
        "selects": st.none() | some(LABELS, max_size=2),
    }
)
ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), ROLES),
        st.tuples(st.just("remove"), st.sampled_from(NAMES)),
        st.tuples(st.just("sync"), st.sampled_from(NAMES)),
    ),
    max_size=30,
)


def rule(verb: str) -> Object:
    return {"verbs": [verb], "apiGroups": [""], "resources": ["pods"]}


def made(spec: Object) -> Object:
    role: Object = {
        "metadata": {"name": spec["name"], "labels": dict.fromkeys(spec["labels"], "yes")},
        "rules": [rule(verb) for verb in spec["verbs"]],
    }
    if spec["selects"] is not None:
        selectors = [{"matchLabels": {label: "yes"}} for label in spec["selects"]]
        role["aggregationRule"] = {"clusterRoleSelectors": selectors}
    return role


def sync(roles: dict[str, Object], name: str) -> bool:
    """One turn of the controller; whether it wrote."""
    role = roles.get(name)
    if role is None or not role.get("aggregationRule"):
        return False
    rules = gathered(role, roles.values())
    if rules == role["rules"]:
        return False
    roles[name] = {**role, "rules": rules}
    return True


def reached(roles: dict[str, Object], name: str) -> set[str]:
    """The roles that gather nothing themselves, to which one comes from ``name``."""
    found, todo, leaves = {name}, [name], set()
    while todo:
        labels = {
            label
            for selector in roles[todo.pop()]["aggregationRule"]["clusterRoleSelectors"]
            for label in selector["matchLabels"]
        }
        for other, role in roles.items():
            if other not in found and labels & role["metadata"]["labels"].keys():
                found.add(other)
                if role.get("aggregationRule"):
                    todo.append(other)
                else:
                    leaves.add(other)
    return leaves


@given(ACTS, st.permutations(NAMES), st.permutations(NAMES))
def test_every_order_comes_to_the_same_end(
    acts: list[tuple[str, Any]], one: list[str], other: list[str]
) -> None:
    roles: dict[str, Object] = {}
    for what, value in acts:
        if what == "write":
            roles[value["name"]] = made(value)
        elif what == "remove":
            roles.pop(value, None)
        else:
            sync(roles, value)
    ends = []
    for order in (one, other):
        mine = dict(roles)
        for name in order:
            sync(mine, name)
        assert not any(sync(mine, name) for name in NAMES), "one look at each is enough"
        ends.append(mine)
    assert ends[0] == ends[1]
    for name, role in ends[0].items():
        if not role.get("aggregationRule"):
            assert role is roles[name], "whoever gathers nothing is left alone"
            continue
        assert all(role["rules"].count(each) == 1 for each in role["rules"])
        due = [each for leaf in reached(roles, name) for each in roles[leaf]["rules"]]
        assert all(each in role["rules"] for each in due), "nothing is left out"
        assert all(each in due for each in role["rules"]), "nothing is kept that nobody grants"
