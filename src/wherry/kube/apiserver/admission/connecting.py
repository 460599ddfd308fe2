"""A connection as admission sees it: the operation CONNECT, whose object are the options."""

from __future__ import annotations

from wherry.kube.apiserver.admission.attributes import Attributes
from wherry.kube.apiserver.objects import Object
from wherry.kube.apiserver.request import Query, RequestInfo, User

_KINDS = {
    ("pods", "exec"): "PodExecOptions",
    ("pods", "attach"): "PodAttachOptions",
    ("pods", "portforward"): "PodPortForwardOptions",
    ("pods", "proxy"): "PodProxyOptions",
    ("services", "proxy"): "ServiceProxyOptions",
    ("nodes", "proxy"): "NodeProxyOptions",
}
_FLAGS = {"stdin": False, "stdout": True, "stderr": True, "tty": False}


def connection(user: User, info: RequestInfo, query: Query) -> Attributes:
    """The attributes of a request that connects to a pod, a service or a node."""
    return Attributes(
        "CONNECT",
        info.served,
        info.subresource,
        info.namespace,
        info.name,
        user,
        _options(info, query),
    )


def _options(info: RequestInfo, query: Query) -> Object:
    o: Object = {
        "kind": _KINDS.get((info.plural, info.subresource), ""),
        "apiVersion": "v1",
        "metadata": {},
    }
    if info.subresource in ("exec", "attach"):
        for name, default in _FLAGS.items():
            if query.flag(name) if query.has(name) else default:
                o[name] = True
        if query.get("container"):
            o["container"] = query.get("container")
        if query.has("command"):
            o["command"] = query.all("command")
    elif info.subresource == "portforward":
        ports = [text for each in query.all("ports") for text in each.split(",")]
        if ports:
            o["ports"] = [int(text) for text in ports if text.isascii() and text.isdigit()]
    elif info.subresource == "proxy" and info.rest:
        o["path"] = info.rest
    return o
