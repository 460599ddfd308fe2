"""What a failed pod means for its Job, and when enough pods have succeeded.

(https://kubernetes.io/docs/concepts/workloads/controllers/job/, "Pod failure policy", "Success
policy")
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from wherry.kube.api import conditions, meta, pods
from wherry.kube.client.transport import Object
from wherry.kube.controllers.job import indexes


class Meaning(NamedTuple):
    """What the policy says of one failed pod."""

    counts: bool
    """Whether it counts towards the limits."""
    fails_index: bool = False
    fails_job: str = ""
    """The message with which the whole Job fails; empty where it does not."""


_PLAIN = Meaning(counts=True)


def meaning(job: Object, pod: Object) -> Meaning:
    """What the failure of ``pod`` means: the first rule that takes it decides."""
    policy = job["spec"].get("podFailurePolicy") or {}
    if pods.phase(pod) != "Failed":
        return _PLAIN
    for number, rule in enumerate(policy.get("rules") or ()):
        found = _by_exit_code(rule, pod) or _by_condition(rule, pod)
        if not found:
            continue
        match rule.get("action"):
            case "Ignore":
                return Meaning(counts=False)
            case "FailIndex":
                return Meaning(counts=True, fails_index=True)
            case "FailJob":
                return Meaning(
                    counts=True, fails_job=f"{found} matching FailJob rule at index {number}"
                )
            case _:
                return _PLAIN
    return _PLAIN


def _by_exit_code(rule: Object, pod: Object) -> str:
    wanted = rule.get("onExitCodes")
    if not wanted:
        return ""
    status = pod.get("status") or {}
    values = wanted.get("values") or ()
    for part in ("containerStatuses", "initContainerStatuses"):
        for container in status.get(part) or ():
            if wanted.get("containerName") not in (None, container.get("name")):
                continue
            ended = (container.get("state") or {}).get("terminated")
            code = ended.get("exitCode", 0) if ended else 0
            if code and (code in values) == (wanted.get("operator") == "In"):
                return (
                    f"Container {container.get('name')} for pod {meta.key(pod)} failed with exit "
                    f"code {code}"
                )
    return ""


def _by_condition(rule: Object, pod: Object) -> str:
    for pattern in rule.get("onPodConditions") or ():
        found = conditions.of(pod, pattern.get("type", ""))
        if found is not None and found.get("status") == (pattern.get("status") or "True"):
            return f"Pod {meta.key(pod)} has condition {pattern.get('type')}"
    return ""


def success_rule(job: Object, succeeded: Iterable[int]) -> int | None:
    """The first rule of the success policy that the succeeded indexes fulfil."""
    done = set(succeeded)
    for number, rule in enumerate((job["spec"].get("successPolicy") or {}).get("rules") or ()):
        among = done
        if rule.get("succeededIndexes") is not None:
            wanted = indexes.parse(rule["succeededIndexes"], job["spec"].get("completions"))
            among = done & wanted
            if rule.get("succeededCount") is None and among == wanted:
                return number
        if rule.get("succeededCount") is not None and len(among) >= rule["succeededCount"]:
            return number
    return None
