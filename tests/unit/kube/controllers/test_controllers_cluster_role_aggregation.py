from __future__ import annotations

from typing import Any

from wherry.kube.controllers.cluster_role_aggregation import gathered

Object = dict[str, Any]


def role(name: str, *rules: str, labels: dict[str, str] | None = None, **rest: Any) -> Object:
    made = [{"verbs": [verb], "resources": ["x"], "apiGroups": [""]} for verb in rules]
    return {"metadata": {"name": name, "labels": labels or {}}, "rules": made, **rest}


def aggregating(*selectors: Object) -> Object:
    return role("all", aggregationRule={"clusterRoleSelectors": list(selectors)})


def verbs(rules: list[Any]) -> list[str]:
    return [rule["verbs"][0] for rule in rules]


def test_rules_come_by_selector_then_by_name_and_once() -> None:
    others = [
        role("b", "list", "get", labels={"to": "all"}),
        role("a", "get", "watch", labels={"to": "all"}),
        role("c", "delete", labels={"more": "yes"}),
        role("d", "patch"),
    ]
    one = aggregating({"matchLabels": {"to": "all"}})
    assert verbs(gathered(one, others)) == ["get", "watch", "list"]
    two = aggregating({"matchLabels": {"more": "yes"}}, {"matchLabels": {"to": "all"}})
    assert verbs(gathered(two, others)) == ["delete", "get", "watch", "list"]


def test_a_role_does_not_gather_itself() -> None:
    one = aggregating({})
    one["rules"] = [{"verbs": ["own"]}]
    assert verbs(gathered(one, [one, role("a", "get")])) == ["get"]


def test_a_selector_by_expressions() -> None:
    select = {"matchExpressions": [{"key": "k", "operator": "In", "values": ["x", "y"]}]}
    others = [role("a", "get", labels={"k": "y"}), role("b", "list", labels={"k": "z"})]
    assert verbs(gathered(aggregating(select), others)) == ["get"]
