"""What old versions looked like, derived from the present definitions.

A definition of an old version is that of the stored one under another name, all that it holds from
the same version renamed with it; `_CHANGES` says where fields differ. Nothing is derived that the
schema data has itself. This module works on definitions with their prose and without it alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from wherry.kube.api.conversion import VERSIONS
from wherry.kube.api.resources import Resource

Schema = dict[str, Any]
Schemas = dict[str, Schema]

_REF = "#/$defs/"
_INT = {"type": "integer", "format": "int32"}
_TEXT = {"type": ["string", "null"]}
_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_OBJECT_META = _META + "ObjectMeta"
_SELECTOR = _META + "LabelSelector"
_QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
_INT_OR_STRING = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"

_NOT_RENAMED = frozenset(
    {"io.k8s.api.admissionregistration.v1.RuleWithOperations", "io.k8s.api.batch.v1.JobSpec"}
)
"""What an old version took from the stored one as it was."""

_FROM = {
    "io.k8s.api.events.v1beta1.Event": "io.k8s.api.events.v1.Event",
    "io.k8s.api.extensions.v1beta1.Scale": "io.k8s.api.autoscaling.v1.Scale",
    "io.k8s.api.apps.v1beta1.Scale": "io.k8s.api.autoscaling.v1.Scale",
    "io.k8s.api.apps.v1beta2.Scale": "io.k8s.api.autoscaling.v1.Scale",
}
"""Definitions that are not derived from those of the stored version."""


def _ref(name: str, description: str) -> Schema:
    return {"$ref": _REF + name, "description": description}


def _with(description: str, schema: Schema) -> Schema:
    return {**schema, "description": description}


def _struct(
    description: str, properties: dict[str, Schema], required: Iterable[str] = ()
) -> Schema:
    out: Schema = {"description": description, "type": ["object", "null"], "properties": properties}
    if needed := list(required):
        out["required"] = needed
    return out


Change = Callable[[Schema, str], Schema]
"""From a definition and the prefix of its version's names to the changed definition."""


def _changed(
    *, drop: Iterable[str] = (), optional: Iterable[str] = (), **add: Callable[[str], Schema]
) -> Change:
    """Without the fields to drop, with those to add (made for a prefix), and with some that need
    not be given."""
    gone, free = frozenset(drop), frozenset(optional)

    def change(schema: Schema, prefix: str) -> Schema:
        kept = {k: v for k, v in schema.get("properties", {}).items() if k not in gone}
        kept |= {name: made(prefix) for name, made in add.items()}
        out = {**schema, "properties": kept}
        required = [n for n in schema.get("required", ()) if n not in gone and n not in free]
        out.pop("required", None)
        if required:
            out["required"] = required
        return out

    return change


def _anew(made: Callable[[str], Schema]) -> Change:
    return lambda _, prefix: made(prefix)


_ROLLBACK = "The configuration to roll back to. It is cleared when that is done."

_selector_optional = _changed(optional=("selector",))
_rolls_back = _changed(
    optional=("selector",),
    rollbackTo=lambda prefix: _ref(prefix + "RollbackConfig", _ROLLBACK),
)
_backend = _changed(
    drop=("service",),
    serviceName=lambda _: _with("The name of the service.", _TEXT),
    servicePort=lambda _: _ref(_INT_OR_STRING, "The port of the service, by number or name."),
)
_ingress_spec = _changed(
    drop=("defaultBackend",),
    backend=lambda prefix: _ref(prefix + "IngressBackend", "Where requests go that no rule takes."),
)
_ingress = {
    "IngressBackend": _backend,
    "IngressSpec": _ingress_spec,
    "HTTPIngressPath": _changed(optional=("pathType",)),
}
_scale_status = _changed(
    drop=("selector",),
    selector=lambda _: {
        "description": "Labels of the pods that count.",
        "type": ["object", "null"],
        "additionalProperties": _TEXT,
    },
    targetSelector=lambda _: _with(
        "The selector of the pods that count, as text: the map cannot say all of it.", _TEXT
    ),
)
_shares = _changed(
    drop=("nominalConcurrencyShares",),
    assuredConcurrencyShares=lambda _: _with(
        "The weight of this level when seats are divided among all limited levels; 30 by default.",
        _INT,
    ),
)
_webhook = _changed(optional=("sideEffects", "admissionReviewVersions"))
_rollback_config = _anew(
    lambda _: _struct(
        "What to roll back to.",
        {
            "revision": {
                "description": "The revision; 0 is the last one.",
                "type": "integer",
                "format": "int64",
            }
        },
    )
)

# --- metrics as autoscaling/v2beta1 has them ---------------------------------------------------

_UTILIZATION = "In percent of what the pods request, on average."
_AVERAGE = "The value per pod, on average."
_NAME = _with("The name of the metric.", {"type": "string"})


def _quantity(description: str) -> Schema:
    return _ref(_QUANTITY, description)


def _selected(prefix: str) -> Schema:
    return _ref(_SELECTOR, "Which of the metric's series, by their labels.")


def _resource(prefix: str, verb: str, container: bool) -> Schema:
    properties = {
        "name": _with("The name of the resource.", {"type": "string"}),
        f"{verb}AverageUtilization": _with(_UTILIZATION, _INT),
        f"{verb}AverageValue": _quantity(_AVERAGE),
    }
    required = ["name"]
    if verb == "current":
        required.append("currentAverageValue")
    if container:
        properties["container"] = _with("The name of the container.", {"type": "string"})
        required.append("container")
    return _struct("A resource that pods use, as known of their requests.", properties, required)


def _pods(prefix: str, verb: str) -> Schema:
    properties = {
        "metricName": _NAME,
        f"{verb}AverageValue": _quantity(_AVERAGE),
        "selector": _selected(prefix),
    }
    return _struct(
        "A metric of each pod, averaged.", properties, ("metricName", f"{verb}AverageValue")
    )


def _object(prefix: str, verb: str) -> Schema:
    properties = {
        "target": _ref(prefix + "CrossVersionObjectReference", "The object described."),
        "metricName": _NAME,
        f"{verb}Value": _quantity("The value of the metric."),
        "selector": _selected(prefix),
        "averageValue": _quantity(_AVERAGE),
    }
    return _struct("A metric of one object.", properties, ("target", "metricName", f"{verb}Value"))


def _external(prefix: str, verb: str) -> Schema:
    properties = {
        "metricName": _NAME,
        "metricSelector": _selected(prefix),
        f"{verb}Value": _quantity("The value of the metric."),
        f"{verb}AverageValue": _quantity(_AVERAGE),
    }
    required = ["metricName"] + (["currentValue"] if verb == "current" else [])
    return _struct("A metric of nothing in the cluster.", properties, required)


def _metrics(verb: str, suffix: str) -> dict[str, Change]:
    return {
        f"ResourceMetric{suffix}": _anew(lambda p: _resource(p, verb, container=False)),
        f"ContainerResourceMetric{suffix}": _anew(lambda p: _resource(p, verb, container=True)),
        f"PodsMetric{suffix}": _anew(lambda p: _pods(p, verb)),
        f"ObjectMetric{suffix}": _anew(lambda p: _object(p, verb)),
        f"ExternalMetric{suffix}": _anew(lambda p: _external(p, verb)),
    }


# --- definitions as apiextensions/v1beta1 has them ----------------------------------------------

_definition = _changed(
    optional=("versions", "scope"),
    version=lambda _: _with("The only version, or the first of the list.", _TEXT),
    validation=lambda prefix: _ref(
        prefix + "CustomResourceValidation", "The schema of all versions."
    ),
    subresources=lambda prefix: _ref(
        prefix + "CustomResourceSubresources", "The subresources of all versions."
    ),
    additionalPrinterColumns=lambda prefix: {
        "description": "The columns of all versions.",
        "type": ["array", "null"],
        "items": {"$ref": _REF + prefix + "CustomResourceColumnDefinition"},
    },
    selectableFields=lambda prefix: {
        "description": "The fields of all versions that may be selected by.",
        "type": ["array", "null"],
        "items": {"$ref": _REF + prefix + "SelectableField"},
    },
)
_column = _changed(
    drop=("jsonPath",),
    JSONPath=lambda _: _with("Where the value stands in the object.", {"type": "string"}),
)
_definition_conversion = _changed(
    drop=("webhook",),
    webhookClientConfig=lambda prefix: _ref(
        prefix + "WebhookClientConfig", "Where the webhook that converts is."
    ),
    conversionReviewVersions=lambda _: {
        "description": "The versions of ConversionReview that the webhook takes.",
        "type": ["array", "null"],
        "items": {"type": ["string", "null"]},
    },
)

_CHANGES: dict[str, dict[str, Change]] = {
    "io.k8s.api.extensions.v1beta1.": {
        **_ingress,
        "DaemonSetSpec": _changed(
            optional=("selector",),
            templateGeneration=lambda _: {
                "description": "Counts the changes of the template.",
                "type": "integer",
                "format": "int64",
            },
        ),
        "DeploymentSpec": _rolls_back,
        "ReplicaSetSpec": _selector_optional,
        "RollbackConfig": _rollback_config,
        "ScaleStatus": _scale_status,
    },
    "io.k8s.api.apps.v1beta1.": {
        "DeploymentSpec": _rolls_back,
        "RollbackConfig": _rollback_config,
        "StatefulSetSpec": _selector_optional,
        "ScaleStatus": _scale_status,
    },
    "io.k8s.api.apps.v1beta2.": {"ScaleStatus": _scale_status},
    "io.k8s.api.networking.v1beta1.": _ingress,
    "io.k8s.api.autoscaling.v2beta1.": {
        **_metrics("target", "Source"),
        **_metrics("current", "Status"),
        "HorizontalPodAutoscalerSpec": _changed(drop=("behavior",)),
    },
    "io.k8s.api.discovery.v1beta1.": {
        "Endpoint": _changed(
            drop=("deprecatedTopology", "zone"),
            topology=lambda _: {
                "description": "Where the endpoint is, by labels of its node.",
                "type": ["object", "null"],
                "additionalProperties": _TEXT,
            },
        )
    },
    "io.k8s.api.admissionregistration.v1beta1.": {
        "MutatingWebhook": _webhook,
        "ValidatingWebhook": _webhook,
    },
    "io.k8s.api.certificates.v1beta1.": {
        "CertificateSigningRequestCondition": _changed(optional=("status",)),
        "CertificateSigningRequestSpec": _changed(optional=("signerName",)),
    },
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1beta1.": {
        "CustomResourceDefinitionSpec": _definition,
        "CustomResourceColumnDefinition": _column,
        "CustomResourceConversion": _definition_conversion,
    },
    "io.k8s.api.flowcontrol.v1beta1.": {"LimitedPriorityLevelConfiguration": _shares},
    "io.k8s.api.flowcontrol.v1beta2.": {"LimitedPriorityLevelConfiguration": _shares},
}


def derive(data: Schemas) -> Schemas:
    """The definitions of all old versions that ``data`` lacks, by name."""
    out: Schemas = {}
    for version in VERSIONS:
        resource = version.resource
        prefix = _prefix(resource.schema)
        for name in (resource.schema, resource.schema + "List"):
            _derive(name, _origin(name, version.stored.resource), data, out)
            _identify(out.get(name), resource, name.rpartition(".")[2])
        if "scale" in resource.subresources and prefix + "Scale" not in out:
            _derive(prefix + "Scale", _FROM[prefix + "Scale"], data, out)
            _identify(out.get(prefix + "Scale"), resource, "Scale")
    return out


def _prefix(name: str) -> str:
    return name.rpartition(".")[0] + "."


def _origin(name: str, stored: Resource) -> str:
    single = name.removesuffix("List") if name not in _FROM else name
    if single in _FROM:
        return _FROM[single] + ("List" if name != single else "")
    return _prefix(stored.schema) + name.rpartition(".")[2]


def _derive(name: str, origin: str, data: Schemas, out: Schemas) -> None:
    """Put the definition ``name``, made of that called ``origin``, into ``out``, and all that it
    names."""
    if name in data or name in out:
        return
    before, after = _prefix(origin), _prefix(name)
    schema = data.get(origin, {})
    if change := _CHANGES.get(after, {}).get(name.rpartition(".")[2]):
        schema = change(schema, after)
    below: dict[str, str] = {}
    out[name] = _renamed(schema, before, after, below)
    for each, came_from in below.items():
        _derive(each, came_from, data, out)


def _renamed(schema: Any, before: str, after: str, below: dict[str, str]) -> Any:
    """A copy in which references into the version ``before`` lead into ``after``."""
    if isinstance(schema, list):
        return [_renamed(each, before, after, below) for each in schema]
    if not isinstance(schema, dict):
        return schema
    out = {}
    for key, value in schema.items():
        if key == "$ref" and isinstance(value, str):
            target = value.removeprefix(_REF)
            if target.startswith(before) and target not in _NOT_RENAMED:
                renamed = after + target.removeprefix(before)
                below[renamed], target = target, renamed
            elif target.startswith(after):
                below[target] = before + target.removeprefix(after)
            out[key] = _REF + target
        else:
            out[key] = _renamed(value, before, after, below)
    return out


def _identify(schema: Schema | None, resource: Resource, kind: str) -> None:
    """A definition that was just made says which kind it is of."""
    if schema is None:
        return
    identity = {"group": resource.group, "kind": kind, "version": resource.version}
    schema["x-kubernetes-group-version-kind"] = [identity]
    for name, value in (("apiVersion", resource.api_version), ("kind", kind)):
        if "enum" in schema["properties"].get(name, {}):
            schema["properties"][name]["enum"] = [value]
