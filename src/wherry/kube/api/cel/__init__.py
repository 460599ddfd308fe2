"""CEL, the language of validation rules and admission policies, with Kubernetes' libraries.

An interpreter of our own: the Rust binding has neither the optional syntax nor room for types like
quantity, and evaluates more than it may without a bound; the pure Python one takes 170 µs for what
here takes 2. Values are plain Python ones (``values``), so nothing is converted on the way in.

    program = cel.compile("self.replicas <= self.?max.orValue(10)", frozenset({"self"}))
    program.evaluate({"self": {"replicas": 3}})     → True

``syntax`` makes a tree of a text, ``program`` closures of the tree (``logic`` and ``macros`` of
operators and loops); ``functions`` lists by name what ``operators``, ``conversions``, ``strings``,
``lists``, ``times``, ``kubernetes`` and ``authorizer`` bring.

``compile`` is cached. Bring types of your own as subclasses of `Opaque` (an authorizer, say), or
give a function as the value of a variable to have it computed when it is first used.
"""

from wherry.kube.api.cel import authorizer, kubernetes  # noqa: F401 - they add their functions
from wherry.kube.api.cel.access import unescape
from wherry.kube.api.cel.program import BUDGET, Program, compile
from wherry.kube.api.cel.syntax import CompileError, UInt
from wherry.kube.api.cel.values import CELError, CostExceeded, Opaque, Optional, type_name

__all__ = [
    "BUDGET",
    "CELError",
    "CompileError",
    "CostExceeded",
    "Opaque",
    "Optional",
    "Program",
    "UInt",
    "compile",
    "type_name",
    "unescape",
]
