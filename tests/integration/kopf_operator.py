"""An operator as users of kopf write them; run by ``kopf run``, see test_apiserver_kopf."""

from __future__ import annotations

import os
from typing import Any

import kopf


@kopf.on.startup()
def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
    settings.posting.loggers = True
    settings.admission.managed = "auto.kopf.example.com"
    settings.admission.server = kopf.WebhookServer(
        addr="127.0.0.1",
        host="127.0.0.1",
        cafile=os.environ["WEBHOOK_CA"],
        certfile=os.environ["WEBHOOK_CERT"],
        pkeyfile=os.environ["WEBHOOK_KEY"],
    )


@kopf.on.mutate("kopfexamples")
def fill(patch: kopf.Patch, spec: kopf.Spec, **_: Any) -> None:
    if "field" not in spec:
        patch.spec["field"] = "filled"


@kopf.on.validate("kopfexamples")
def check(spec: kopf.Spec, warnings: list[str], **_: Any) -> None:
    if spec.get("field") == "odd":
        warnings.append("that is odd")
    if spec.get("field") == "bad":
        raise kopf.AdmissionError("no bad fields", code=418)


@kopf.on.create("kopfexamples")
def created(spec: kopf.Spec, name: str | None, namespace: str | None, **_: Any) -> dict[str, Any]:
    import kubernetes

    child: dict[str, Any] = {"metadata": {"generateName": f"{name}-"}, "data": dict(spec)}
    kopf.adopt(child)
    kubernetes.config.load_kube_config()
    made = kubernetes.client.CoreV1Api().create_namespaced_config_map(namespace, child)
    return {"child": made.metadata.name}


@kopf.on.update("kopfexamples", field="spec.field")
def updated(old: Any, new: Any, patch: kopf.Patch, **_: Any) -> None:
    patch.status["changed"] = f"{old} to {new}"


@kopf.on.delete("kopfexamples")
def deleted(body: kopf.Body, name: str | None, namespace: str | None, **_: Any) -> None:
    import kubernetes

    kubernetes.config.load_kube_config()
    gone = {"metadata": {"name": f"{name}-gone"}}
    kubernetes.client.CoreV1Api().create_namespaced_config_map(namespace, gone)
