"""One request, as the audit log tells of it: an event at each stage it comes to."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from wherry.kube.api.errors import StatusError
from wherry.kube.api.meta import format_micro_time
from wherry.kube.apiserver.answers import Answer, Collection, Single
from wherry.kube.apiserver.audit.policy import NOTHING, Policy
from wherry.kube.apiserver.content import read_value
from wherry.kube.apiserver.metrics import AUDIT_EVENTS
from wherry.kube.apiserver.request import APIRequest, RequestInfo, User

Object = dict[str, Any]

_LONGEST_ID = 64
_STREAMS = frozenset(("exec", "attach", "portforward", "proxy", "log"))


class Sink(Protocol):
    """Where events go."""

    def write(self, event: Object) -> None: ...


class Auditor:
    """Begins a record for each request; they end in ``sink``."""

    def __init__(self, policy: Policy, sink: Sink) -> None:
        self.policy = policy
        self.sink = sink

    def begin(self, uri: str, headers: Mapping[str, str], agent: str, remote: str | None) -> Record:
        """A request that has just come in."""
        given = headers.get("Audit-ID", "")
        id = given if 0 < len(given) <= _LONGEST_ID else str(uuid.uuid4())
        sources = [part.strip() for part in headers.get("X-Forwarded-For", "").split(",")]
        sources += [headers.get("X-Real-Ip", ""), remote or ""]
        unique = list(dict.fromkeys(source for source in sources if source))
        return Record(self, id, uri, agent, unique)


class Record:
    """What is known of a request so far. Until `identified` nothing is told of it."""

    def __init__(self, auditor: Auditor, id: str, uri: str, agent: str, sources: list[str]) -> None:
        self.id = id
        self._auditor = auditor
        self._uri, self._agent, self._sources = uri, agent, sources
        self._received = datetime.now(UTC)
        self._verdict = NOTHING
        self._user: User | None = None
        self._event: Object = {}
        self._ended = False
        self._started = False

    def identified(self, user: User | None, info: RequestInfo) -> None:
        """Who asks for what: from here on the policy decides. None: they could not say."""
        verdict = self._verdict = self._auditor.policy.judge(user, info)
        if verdict.level == "None":
            return
        self._user = user
        self._event = {
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "level": verdict.level,
            "auditID": self.id,
            "stage": "",
            "requestURI": self._uri,
            "verb": info.verb,
            "user": _told(user),
            "sourceIPs": self._sources,
            "userAgent": self._agent,
        }
        if info.is_resource:
            self._event["objectRef"] = _reference(info)
        self._event["requestReceivedTimestamp"] = format_micro_time(self._received)
        if user is not None:
            self._tell("RequestReceived")

    def acting(self, user: User) -> None:
        """In whose name the request is judged."""
        if self._event and user is not self._user:
            self._event["impersonatedUser"] = _told(user)

    def decided(self, allowed: bool, reason: str) -> None:
        """What authorisation said."""
        if self._event:
            self._annotate(
                {
                    "authorization.k8s.io/decision": "allow" if allowed else "forbid",
                    "authorization.k8s.io/reason": reason,
                }
            )

    def asked(self, request: APIRequest) -> None:
        """The request as read, when it was answered."""
        if not self._event:
            return
        self._annotate(request.annotations)
        if self._verdict.level in ("Request", "RequestResponse") and not request.body.empty:
            resource = request.info.resource
            try:
                value, _ = read_value(
                    request.body,
                    resource.kind if resource else "",
                    resource.schema if resource else "",
                )
            except StatusError:
                return
            self._event["requestObject"] = self._bare(value)
            metadata = value.get("metadata") if isinstance(value, dict) else None
            reference = self._event.get("objectRef")
            if isinstance(metadata, dict) and reference is not None:
                for key in ("name", "uid", "resourceVersion"):
                    if isinstance(metadata.get(key), str):
                        reference.setdefault(key, metadata[key])

    def answered(self, answer: Answer) -> None:
        """What the request is answered with."""
        if self._verdict.level == "RequestResponse" and isinstance(answer, Single | Collection):
            self._event["responseObject"] = self._bare(answer.object)

    def failed(self, error: StatusError) -> None:
        """Why the request was refused."""
        if self._event:
            status = error.status()
            kept = ("metadata", "status", "message", "reason", "details", "code")
            self._event["responseStatus"] = {k: status[k] for k in kept if k in status}
            if self._verdict.level == "RequestResponse":
                self._event["responseObject"] = status

    def started(self, code: int) -> None:
        """The answer begins, and will take its time."""
        if self._event and not self._started:
            self._started = True
            self._event.setdefault("responseStatus", {"metadata": {}, "code": code})
            self._tell("ResponseStarted")

    def ended(self, code: int, *, panic: bool = False) -> None:
        """The answer is complete."""
        if not self._event or self._ended:
            return
        self._ended = True
        self._event.setdefault("responseStatus", {"metadata": {}, "code": code})
        if self._user is None:  # nobody came in: there is no more to tell
            self._tell("ResponseStarted")
            return
        self._tell("Panic" if panic else "ResponseComplete")

    def _tell(self, stage: str) -> None:
        if stage in self._verdict.omit_stages:
            return
        event = {
            **self._event,
            "stage": stage,
            "stageTimestamp": format_micro_time(datetime.now(UTC)),
        }
        if "annotations" in event:  # last, as upstream has it
            event["annotations"] = dict(event.pop("annotations"))
        AUDIT_EVENTS.add()
        self._auditor.sink.write(event)

    def _annotate(self, annotations: Mapping[str, str]) -> None:
        if annotations:
            self._event.setdefault("annotations", {}).update(annotations)

    def _bare(self, value: Any) -> Any:
        """The object without its managedFields, where the policy wants it so."""
        if not self._verdict.omit_managed_fields or not isinstance(value, dict):
            return value
        bare = dict(value)
        if isinstance(bare.get("items"), list):
            bare["items"] = [self._bare(item) for item in bare["items"]]
        metadata = bare.get("metadata")
        if isinstance(metadata, dict) and "managedFields" in metadata:
            bare["metadata"] = {k: v for k, v in metadata.items() if k != "managedFields"}
        return bare


def is_long(info: RequestInfo) -> bool:
    """Whether an answer lasts: then its begin is told, too."""
    return info.verb == "watch" or info.subresource in _STREAMS


def _reference(info: RequestInfo) -> Object:
    parts = {
        "resource": info.plural,
        "namespace": info.namespace,
        "name": info.name,
        "apiGroup": info.group,
        "apiVersion": info.version,
        "subresource": info.subresource,
    }
    return {key: value for key, value in parts.items() if value}


def _told(user: User | None) -> Object:
    if user is None:
        return {}
    told: Object = {"username": user.name}
    if user.uid:
        told["uid"] = user.uid
    if user.groups:
        told["groups"] = list(user.groups)
    if user.extra:
        told["extra"] = {key: list(values) for key, values in user.extra.items()}
    return told
