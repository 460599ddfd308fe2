"""What ``kubectl get … -o json`` prints, read from the API server without a process of kubectl.

Tests ask it again and again while they wait, and kubectl takes eighty milliseconds of a processor
for each answer. Only plain questions about common kinds are understood.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

_PLACES = {
    "api/v1": "pods,pod,po services,service,svc configmaps,configmap,cm secrets,secret "
    "events,event,ev endpoints,ep persistentvolumeclaims,persistentvolumeclaim,pvc "
    "serviceaccounts,serviceaccount,sa replicationcontrollers,replicationcontroller,rc "
    "nodes,node,no namespaces,namespace,ns persistentvolumes,persistentvolume,pv",
    "apis/apps/v1": "deployments,deployment,deploy replicasets,replicaset,rs "
    "statefulsets,statefulset,sts daemonsets,daemonset,ds",
    "apis/batch/v1": "jobs,job cronjobs,cronjob,cj",
    "apis/discovery.k8s.io/v1": "endpointslices,endpointslice",
    "apis/networking.k8s.io/v1": "ingresses,ingress,ing networkpolicies,networkpolicy,netpol",
    "apis/policy/v1": "poddisruptionbudgets,poddisruptionbudget,pdb",
    "apis/coordination.k8s.io/v1": "leases,lease",
}
_WHERE = {
    word: (place, words.split(",")[0])
    for place, groups in _PLACES.items()
    for words in groups.split()
    for word in words.split(",")
}
_OF_THE_CLUSTER = {"nodes", "namespaces", "persistentvolumes"}
_OPTIONS = {
    "-n": "namespace",
    "--namespace": "namespace",
    "-l": "labelSelector",
    "--selector": "labelSelector",
    "--field-selector": "fieldSelector",
}


def path_of(words: tuple[str, ...], namespace: str = "default") -> str | None:
    """The path and query that these words to ``kubectl get`` mean; None: better ask kubectl."""
    options = {"namespace": namespace}
    names: list[str] = []
    rest = iter(words)
    for word in rest:
        option, equals, value = word.partition("=")
        if word in ("-A", "--all-namespaces"):
            options["namespace"] = ""
        elif option in _OPTIONS and (equals or option == word):
            found = value if equals else next(rest, None)
            if found is None:
                return None
            options[_OPTIONS[option]] = found
        elif word.startswith("-"):
            return None
        else:
            names += word.split("/") if not names else [word]
    if not names or names[0] not in _WHERE or len(names) > 2 or not all(names):
        return None
    place, plural = _WHERE[names[0]]
    inside = options.pop("namespace")
    path = f"/{place}"
    if inside and plural not in _OF_THE_CLUSTER:
        path += f"/namespaces/{quote(inside)}"
    path += f"/{plural}"
    if len(names) == 2:
        return None if options or not inside else f"{path}/{quote(names[1])}"
    return f"{path}?{urlencode(options)}" if options else path


class Reader:
    """Asks the server of a kubeconfig, on a connection for each question."""

    def __init__(self, kubeconfig: str) -> None:
        document = json.loads(kubeconfig)
        cluster, user = document["clusters"][0]["cluster"], document["users"][0]["user"]
        self._address = urlsplit(cluster["server"])
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self._context = ssl.create_default_context(cadata=authority)
        self._context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        with tempfile.NamedTemporaryFile() as file:
            for part in ("client-certificate-data", "client-key-data"):
                file.write(base64.b64decode(user[part]))
            file.flush()
            self._context.load_cert_chain(file.name)

    def get(self, path: str) -> Any:
        """The object or list; None if there is none, or no answer."""
        connection = http.client.HTTPSConnection(
            self._address.hostname or "", self._address.port, context=self._context, timeout=60
        )
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()
        return _as_printed(json.loads(content)) if answer.status == 200 else None


def _as_printed(found: Any) -> Any:
    for each in found.get("items", [found]) or ():
        each["metadata"].pop("managedFields", None)
    if "items" not in found:
        return found
    kind = {"apiVersion": found["apiVersion"], "kind": found["kind"].removesuffix("List")}
    items = [{**kind, **each} for each in found["items"] or ()]
    return {"apiVersion": "v1", "kind": "List", "metadata": {}, "items": items}


_reader = lru_cache(maxsize=8)(Reader)


def read(kubeconfig: Path, words: tuple[str, ...], namespace: str = "default") -> Any:
    """What ``kubectl get`` with these words would print as JSON; None: ask kubectl."""
    path = path_of(words, namespace)
    if path is None:
        return None
    try:
        return _reader(kubeconfig.read_text()).get(path)
    except (OSError, KeyError, ValueError):
        return None
