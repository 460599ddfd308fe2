"""Which containers of a pod are started again when they have ended. No I/O.

The pod's policy, a container's own, and its rules about exit codes:
https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#container-restart-rules
"""

from __future__ import annotations

from typing import Any, Final

Object = dict[str, Any]

RESTART: Final = "Restart"
RESTART_ALL: Final = "RestartAllContainers"


def policy_of(spec: Object, container: Object) -> str:
    """The container's own policy, else its pod's: Always, OnFailure or Never."""
    return container.get("restartPolicy") or spec.get("restartPolicy") or "Always"


def matching_action(container: Object, exit_code: int) -> str:
    """What the first of the container's rules says that knows the code; empty where none does."""
    for rule in container.get("restartPolicyRules") or ():
        codes = rule.get("exitCodes") or {}
        listed = exit_code in (codes.get("values") or ())
        if codes and listed == (codes.get("operator") != "NotIn"):
            return str(rule.get("action"))
    return ""


def is_restarted(spec: Object, container: Object, exit_code: int) -> bool:
    """Whether a container that ended with ``exit_code`` is started again.

    The first of its rules that knows the code decides, else its policy.
    """
    action = matching_action(container, exit_code)
    if action:
        return action in (RESTART, RESTART_ALL)
    policy = policy_of(spec, container)
    return policy == "Always" or (policy == "OnFailure" and exit_code != 0)


def may_restart_all(spec: Object) -> bool:
    """Whether a rule of any container restarts them all; most pods have none."""
    return any(
        rule.get("action") == RESTART_ALL
        for kind in ("initContainers", "containers")
        for container in spec.get(kind) or ()
        for rule in container.get("restartPolicyRules") or ()
    )
