"""Running the expressions of a policy: its variables when they are used, and within its budget.

Upstream: k8s.io/apiserver/pkg/admission/plugin/cel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wherry.kube.api import cel
from wherry.kube.apiserver.admission.expressions import POLICY_NAMES, Budget, Environment

Object = dict[str, Any]

BUDGET = 10_000_000
"""Steps that all expressions of a policy may take together for one request."""
OUT_OF_BUDGET = (
    "validation failed due to running out of cost budget, no further validation rules will be run"
)


class EvaluationFailed(Exception):
    """An expression without a value; ``str()`` is upstream's sentence."""


class _Variables(dict[str, Any]):
    """Computed when they are first read, in terms of those before them."""

    def __init__(self, evaluation: Evaluation, expressions: Sequence[Object]) -> None:
        self._evaluation = evaluation
        self._expressions = {v.get("name", ""): v.get("expression", "") for v in expressions}
        self._failed: dict[str, cel.CELError] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._expressions

    def __missing__(self, name: str) -> Any:
        if name in self._failed:
            raise self._failed[name]
        text = self._expressions[name]
        try:
            value = self[name] = self._evaluation.value(text)
        except cel.CompileError as error:
            self._failed[name] = cel.CELError(f"compilation failed: {error}")
            raise self._failed[name] from None
        except cel.CELError as error:
            self._failed[name] = error
            raise
        return value


class Evaluation:
    """One policy on one request with one parameter."""

    def __init__(
        self, environment: Environment, variables: Sequence[Object], param: Object | None
    ) -> None:
        self._budget = Budget(BUDGET)
        self.given: dict[str, Any] = {
            **environment.variables,
            "params": param,
            "variables": _Variables(self, variables),
        }

    def value(self, text: str) -> Any:
        """Raises CompileError, CELError."""
        return self._budget.evaluate(cel.compile(text, POLICY_NAMES), self.given)

    def evaluate(self, text: str) -> Any:
        """The value of an expression. Raises EvaluationFailed, CostExceeded."""
        try:
            return self.value(text)
        except cel.CompileError as error:
            raise EvaluationFailed(
                f"expression '{text}' resulted in error: compilation error: compilation failed: "
                f"{error}"
            ) from None
        except cel.CostExceeded:
            raise
        except cel.CELError as error:
            raise EvaluationFailed(f"expression '{text}' resulted in error: {error}") from None


def extra(evaluation: Evaluation) -> Mapping[str, Any]:
    """What match conditions of a policy see besides the variables of all."""
    return {"params": evaluation.given["params"]}
