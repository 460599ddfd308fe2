"""Match conditions: expressions that must all hold for a webhook or a policy to be concerned.

Upstream: k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions/matcher.go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wherry.kube.api import cel
from wherry.kube.apiserver.admission.expressions import CONDITION_NAMES, Budget, Environment

Object = dict[str, Any]

BUDGET = 2_500_000
"""Steps that all conditions of a webhook may take together."""


class Undecided(Exception):
    """Conditions of which one could not be evaluated and none failed."""


def hold(
    conditions: Sequence[Object],
    environment: Environment,
    *,
    strict: bool,
    names: frozenset[str] = CONDITION_NAMES,
    more: Mapping[str, Any] | None = None,
) -> bool:
    """Whether all conditions hold. One that fails decides, even where others are in error.

    Raises:
        Undecided: it cannot be known, and ``strict``; otherwise they do not hold.
    """
    budget = Budget(BUDGET)
    errors = []
    variables = {**environment.variables, **(more or {})}
    for condition in conditions:
        text = condition.get("expression", "")
        try:
            value = budget.evaluate(cel.compile(text, names), variables)
        except cel.CompileError as error:
            errors.append(f"compilation error: compilation failed: {error}")
            continue
        except cel.CostExceeded:
            errors.append(
                "validation failed due to running out of cost budget, no further validation "
                "rules will be run"
            )
            break
        except cel.CELError as error:
            errors.append(f"expression '{text}' resulted in error: {error}")
            continue
        if value is not True:
            return False
    if errors and strict:
        raise Undecided(errors[0] if len(errors) == 1 else f"[{', '.join(errors)}]")
    return not errors
