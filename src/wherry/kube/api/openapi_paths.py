"""The operations that OpenAPI documents tell of, made from the table of resources.

Clients read more from them than one might think: kubectl finds the kind of a resource by its path,
whether the server validates fields and knows dry runs by the query parameters of its patch, and
which patches a kind takes by the media types. ``openapi`` renders them in versions 2 and 3.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from wherry.kube.api.discovery import subresources_of
from wherry.kube.api.patch import APPLY, JSON_PATCH, MERGE_PATCH, STRATEGIC_MERGE_PATCH
from wherry.kube.api.resources import Resource
from wherry.kube.api.subresources import Subresource

META = "io.k8s.apimachinery.pkg.apis.meta.v1."
PATCH_TYPES = (APPLY, JSON_PATCH, MERGE_PATCH, STRATEGIC_MERGE_PATCH)

PARAMETERS: dict[str, tuple[str, str]] = {
    "allowWatchBookmarks": ("boolean", "Send BOOKMARK events with the revision reached."),
    "command": ("string", "What to run, one word a parameter; it is not run in a shell."),
    "container": ("string", "Which container; the only one where there is one."),
    "continue": ("string", "The token of the answer before, to go on with the next page."),
    "dryRun": ("string", "All: go through every stage, but persist nothing."),
    "fieldManager": ("string", "Who makes the change, for metadata.managedFields."),
    "fieldSelector": ("string", "Only objects whose fields match."),
    "fieldValidation": (
        "string",
        "What to do with unknown and doubled fields: Ignore, Warn (the default) or Strict.",
    ),
    "follow": ("boolean", "Stay and send what is written from now on."),
    "force": ("boolean", "Apply: take fields from other managers. Only for apply patches."),
    "gracePeriodSeconds": ("integer", "Seconds until the object is removed; 0 means now."),
    "labelSelector": ("string", "Only objects whose labels match."),
    "limit": ("integer", "The most objects in one answer; the rest by continue."),
    "limitBytes": ("integer", "The most bytes to send."),
    "orphanDependents": ("boolean", "Deprecated: use propagationPolicy."),
    "path": ("string", "The rest of the URL, passed on."),
    "ports": ("integer", "The ports to forward, where the protocol needs to know before."),
    "pretty": ("string", "true: indent the answer for people."),
    "previous": ("boolean", "The log of the container's run before this one."),
    "propagationPolicy": ("string", "What happens to dependents: Orphan, Background, Foreground."),
    "resourceVersion": ("string", "The revision the answer must have, or must be as new as."),
    "resourceVersionMatch": ("string", "How resourceVersion counts: Exact or NotOlderThan."),
    "sendInitialEvents": ("boolean", "Begin a watch with the objects there are."),
    "sinceSeconds": ("integer", "Only what was written in the last seconds."),
    "sinceTime": ("string", "Only what was written since a time (RFC 3339)."),
    "stderr": ("boolean", "Connect the standard error stream."),
    "stdin": ("boolean", "Connect the standard input stream."),
    "stdout": ("boolean", "Connect the standard output stream."),
    "stream": ("string", "Which output to send: All, Stdout or Stderr."),
    "tailLines": ("integer", "Only so many lines from the end."),
    "timeoutSeconds": ("integer", "End the call, watches too, after so many seconds."),
    "timestamps": ("boolean", "Put the time (RFC 3339) before each line."),
    "tty": ("boolean", "Give the process a terminal."),
    "watch": ("boolean", "Answer with a stream of changes instead of a list."),
}
"""Query parameters: type and meaning."""

_LIST = (
    "allowWatchBookmarks", "continue", "fieldSelector", "labelSelector", "limit",
    "resourceVersion", "resourceVersionMatch", "sendInitialEvents", "timeoutSeconds", "watch",
)  # fmt: skip
_WRITE = ("dryRun", "fieldManager", "fieldValidation")
_DELETE = ("dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy")
_COLLECTION = (
    "continue", "dryRun", "fieldSelector", "gracePeriodSeconds", "labelSelector", "limit",
    "orphanDependents", "propagationPolicy", "resourceVersion", "resourceVersionMatch",
    "sendInitialEvents", "timeoutSeconds",
)  # fmt: skip
_STREAMS = ("container", "stderr", "stdin", "stdout", "tty")
_OF_SUBRESOURCE = {
    "attach": _STREAMS,
    "exec": ("command", *_STREAMS),
    "log": (
        "container", "follow", "limitBytes", "previous", "sinceSeconds", "sinceTime", "stream",
        "tailLines", "timestamps",
    ),
    "portforward": ("ports",),
    "proxy": ("path",),
}  # fmt: skip

_METHODS = {
    "create": "post",
    "delete": "delete",
    "deletecollection": "delete",
    "get": "get",
    "list": "get",
    "patch": "patch",
    "update": "put",
}
_WORDS = {
    "create": ("create", "create {}"),
    "delete": ("delete", "delete {}"),
    "deletecollection": ("deleteCollection", "delete collection of {}"),
    "get": ("read", "read {} the specified {}"),
    "list": ("list", "list or watch objects of kind {}"),
    "patch": ("patch", "partially update {} the specified {}"),
    "update": ("replace", "replace {} the specified {}"),
}


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path.

    ``body`` and ``answer`` are names of definitions; an empty ``body`` takes none, an empty
    ``answer`` is plain text. ``kind`` is (group, version, kind).
    """

    path: str
    method: str
    id: str
    description: str
    action: str
    kind: tuple[str, str, str]
    query: tuple[str, ...]
    body: str
    answer: str
    codes: tuple[int, ...] = (200,)
    takes: tuple[str, ...] = ("*/*",)


def operations(resources: Iterable[Resource]) -> Iterator[Operation]:
    """All operations of these resources, paths in their order."""
    for resource in resources:
        collection = _path(resource, namespaced=resource.namespaced)
        one = collection + "/{name}"
        if resource.namespaced and "list" in resource.verbs:
            everywhere = _path(resource, namespaced=False)
            yield _operation(resource, None, "list", everywhere, suffix="ForAllNamespaces")
        for verb in resource.verbs:
            if verb in ("create", "list", "deletecollection"):
                yield _operation(resource, None, verb, collection)
        for verb in resource.verbs:
            if verb in ("get", "update", "patch", "delete"):
                yield _operation(resource, None, verb, one)
        for sub in subresources_of(resource):
            for verb in sub.verbs:
                yield _operation(resource, sub, verb, f"{one}/{sub.name}")


def _path(resource: Resource, *, namespaced: bool) -> str:
    where = "/namespaces/{namespace}" if namespaced else ""
    return f"{resource.base_path}{where}/{resource.plural}"


def _operation(
    resource: Resource, sub: Subresource | None, verb: str, path: str, *, suffix: str = ""
) -> Operation:
    method = _METHODS[verb]
    word, sentence = _WORDS[verb]
    connects = sub is not None and sub.connect
    if connects:
        action, word, sentence = "connect", f"connect{method.title()}", f"connect {method.upper()}"
    else:
        action = verb if verb in ("list", "deletecollection") else method
    described = sentence.format(f"{sub.name} of" if sub else "", resource.kind)
    if verb in ("create", "delete", "list", "deletecollection") and not connects:
        described = sentence.format(f"{sub.name} of a {resource.kind}" if sub else resource.kind)
    kind = (
        (sub.group, sub.version, sub.kind)
        if sub
        else (resource.group, resource.version, resource.kind)
    )
    return Operation(
        path=path,
        method=method,
        id=_id(resource, sub, word, "" if suffix else _namespaced(resource), suffix),
        description=" ".join(described.split()),
        action=action,
        kind=kind,
        query=_query(sub, verb),
        body=_body(resource, sub, verb),
        answer=_answer(resource, sub, verb),
        codes=_codes(verb, connects=connects),
        takes=_takes(resource, verb),
    )


def _takes(resource: Resource, verb: str) -> tuple[str, ...]:
    if verb != "patch":
        return ("*/*",)
    return PATCH_TYPES[:-1] if resource.custom else PATCH_TYPES  # the last needs merge keys


def _namespaced(resource: Resource) -> str:
    return "Namespaced" if resource.namespaced else ""


def _id(resource: Resource, sub: Subresource | None, word: str, scope: str, suffix: str) -> str:
    """``createAppsV1NamespacedDeployment``: clients are generated with these as method names."""
    group = resource.group.removesuffix(".k8s.io").replace(".", " ").title().replace(" ", "")
    version = resource.version[0].upper() + resource.version[1:]
    tail = sub.name[0].upper() + sub.name[1:] if sub else ""
    if word == "deleteCollection":
        word, scope = "delete", f"Collection{scope}"
    return f"{word}{group or 'Core'}{version}{scope}{resource.kind}{tail}{suffix}"


def _query(sub: Subresource | None, verb: str) -> tuple[str, ...]:
    if sub is not None and sub.name in _OF_SUBRESOURCE:
        return _OF_SUBRESOURCE[sub.name]
    match verb:
        case "list":
            return _LIST
        case "get":
            return ()
        case "delete":
            return _DELETE
        case "deletecollection":
            return _COLLECTION
        case "patch":
            return (*_WRITE, "force")
    return _WRITE


def _body(resource: Resource, sub: Subresource | None, verb: str) -> str:
    if sub is not None and sub.connect:
        return ""
    match verb:
        case "create" | "update":
            return sub.schema if sub else resource.schema
        case "patch":
            return META + "Patch"
        case "delete" | "deletecollection":
            return META + "DeleteOptions"
    return ""


def _answer(resource: Resource, sub: Subresource | None, verb: str) -> str:
    if sub is not None and (sub.connect or sub.name == "log"):
        return ""
    match verb:
        case "list":
            return resource.schema + "List"
        case "delete" | "deletecollection":
            return META + "Status"
    return sub.schema if sub else resource.schema


def _codes(verb: str, *, connects: bool) -> tuple[int, ...]:
    if connects:
        return (200,)
    match verb:
        case "create":
            return (200, 201, 202)
        case "update" | "patch":
            return (200, 201)
        case "delete":
            return (200, 202)
    return (200,)
