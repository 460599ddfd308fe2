"""MutatingWebhookConfigurations and ValidatingWebhookConfigurations.

Upstream: pkg/apis/admissionregistration/v1/defaults.go and
pkg/apis/admissionregistration/validation/validation.go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar
from urllib.parse import urlsplit

from wherry.kube.api import names
from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds import checks, fields, label_selectors
from wherry.kube.api.kinds.base import AGE_COLUMN, NAME_COLUMN, Column, Kind, Object
from wherry.kube.api.kinds.checks import Faults
from wherry.kube.api.kinds.durations import age
from wherry.kube.api.kinds.equality import equal
from wherry.kube.api.kinds.expressions import CONDITION_NAMES, check_expression

FAILURE_POLICIES = ("Fail", "Ignore")
MATCH_POLICIES = ("Equivalent", "Exact")
_REINVOCATION = ("IfNeeded", "Never")
_EFFECTS = ("None", "NoneOnDryRun")
_OPERATIONS = ("*", "CONNECT", "CREATE", "DELETE", "UPDATE")
_SCOPES = ("*", "Cluster", "Namespaced")
_VERSIONS = ("v1", "v1beta1")
_CONDITIONS_LIMIT = 64


class WebhookConfiguration(Kind):
    """Whom to ask before an object is stored."""

    unconditional_update = False
    has_generation = True
    columns = (
        NAME_COLUMN,
        Column("Webhooks", "integer", description="How many are asked."),
        AGE_COLUMN,
    )
    defaults: ClassVar[Mapping[str, Any]] = {
        "failurePolicy": "Fail",
        "matchPolicy": "Equivalent",
        "timeoutSeconds": 10,
    }

    def default(self, o: Object) -> None:
        for webhook in o.get("webhooks") or ():
            for name, value in self.defaults.items():
                webhook.setdefault(name, value)
            for selector in ("namespaceSelector", "objectSelector"):
                webhook.setdefault(selector, {})
            if service := (webhook.get("clientConfig") or {}).get("service"):
                service.setdefault("port", 443)
            default_rules(webhook.get("rules") or ())

    def changes_generation(self, new: Object, old: Object) -> bool:
        return not equal(new.get("webhooks"), old.get("webhooks"))

    def validate_body(self, o: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        seen: set[str] = set()
        for index, webhook in enumerate(o.get("webhooks") or ()):
            path, name = f"webhooks[{index}]", webhook.get("name", "")
            self._check_webhook(webhook, path, faults)
            if name in seen:
                faults.append(fields.duplicate(f"{path}.name", name))
            seen.add(name)
        return faults

    def row(self, o: Object, now: datetime) -> list[Any]:
        meta = o["metadata"]
        created = age(meta.get("creationTimestamp"), now)
        return [meta.get("name", ""), len(o.get("webhooks") or ()), created]

    def _check_webhook(self, webhook: Object, path: str, faults: Faults) -> None:
        _check_name(webhook.get("name", ""), f"{path}.name", faults)
        check_rules(webhook.get("rules") or (), f"{path}.rules", faults)
        checks.one_of(
            webhook.get("failurePolicy"),
            FAILURE_POLICIES,
            f"{path}.failurePolicy",
            faults,
            needed=False,
        )
        checks.one_of(
            webhook.get("matchPolicy"), MATCH_POLICIES, f"{path}.matchPolicy", faults, needed=False
        )
        effects = webhook.get("sideEffects")
        if effects is None:
            why = f"must specify one of {', '.join(_EFFECTS)}"
            faults.append(fields.required(f"{path}.sideEffects", why))
        elif effects not in _EFFECTS:
            faults.append(fields.not_supported(f"{path}.sideEffects", effects, _EFFECTS))
        seconds = webhook.get("timeoutSeconds")
        if seconds is not None and not 1 <= seconds <= 30:
            why = "the timeout value must be between 1 and 30 seconds"
            faults.append(fields.invalid(f"{path}.timeoutSeconds", seconds, why))
        for selector in ("namespaceSelector", "objectSelector"):
            label_selectors.check_selector(webhook.get(selector), f"{path}.{selector}", faults)
        _check_client(webhook.get("clientConfig") or {}, f"{path}.clientConfig", faults)
        _check_versions(webhook.get("admissionReviewVersions") or (), path, faults)
        conditions = webhook.get("matchConditions") or ()
        check_conditions(conditions, f"{path}.matchConditions", faults)


class ValidatingWebhookConfiguration(WebhookConfiguration):
    """Whom to ask whether an object may be stored."""


class MutatingWebhookConfiguration(WebhookConfiguration):
    """Whom to ask what to change of an object before it is stored."""

    defaults: ClassVar[Mapping[str, Any]] = {
        **WebhookConfiguration.defaults,
        "reinvocationPolicy": "Never",
    }

    def _check_webhook(self, webhook: Object, path: str, faults: Faults) -> None:
        super()._check_webhook(webhook, path, faults)
        where, policy = f"{path}.reinvocationPolicy", webhook.get("reinvocationPolicy")
        checks.one_of(policy, _REINVOCATION, where, faults, needed=False)


def default_rules(rules: Sequence[Object]) -> None:
    """Rules are about objects in namespaces and outside of them."""
    for rule in rules:
        rule.setdefault("scope", "*")


def _check_name(name: str, path: str, faults: Faults) -> None:
    if not name:
        faults.append(fields.required(path))
        return
    before = len(faults)
    checks.dns_subdomain(name, path, faults)
    if len(faults) == before and name.count(".") < 2:
        why = "should be a domain with at least three segments separated by dots"
        faults.append(fields.invalid(path, name, why))


def check_rules(rules: Sequence[Object], path: str, faults: Faults) -> None:
    """Faults of the choice of requests something is asked about."""
    for index, rule in enumerate(rules):
        where = f"{path}[{index}]"
        operations = rule.get("operations") or ()
        if not operations:
            faults.append(fields.required(f"{where}.operations"))
        elif len(operations) > 1 and "*" in operations:
            why = "if '*' is present, must not specify other operations"
            faults.append(fields.invalid(f"{where}.operations", list(operations), why))
        for at, operation in enumerate(operations):
            if operation not in _OPERATIONS:
                field = f"{where}.operations[{at}]"
                faults.append(fields.not_supported(field, operation, _OPERATIONS))
        for name in ("apiGroups", "apiVersions"):
            values = rule.get(name) or ()
            if not values:
                faults.append(fields.required(f"{where}.{name}"))
            elif len(values) > 1 and "*" in values:
                what = "API groups" if name == "apiGroups" else "API versions"
                why = f"if '*' is present, must not specify other {what}"
                faults.append(fields.invalid(f"{where}.{name}", list(values), why))
        for at, version in enumerate(rule.get("apiVersions") or ()):
            if not version:
                faults.append(fields.required(f"{where}.apiVersions[{at}]"))
        _check_resources(rule.get("resources") or (), f"{where}.resources", faults)
        if "scope" in rule and rule["scope"] not in _SCOPES:
            faults.append(fields.not_supported(f"{where}.scope", rule["scope"], _SCOPES))


def _check_resources(resources: Sequence[str], path: str, faults: Faults) -> None:
    if not resources:
        faults.append(fields.required(path))
    whole = {r.removesuffix("/*") for r in resources if r.endswith("/*")}
    everywhere = {r.removeprefix("*/") for r in resources if r.startswith("*/")}
    for index, resource in enumerate(resources):
        where = f"{path}[{index}]"
        if not resource:
            faults.append(fields.required(where))
        kind, slash, below = resource.partition("/")
        if not slash:
            continue
        if below != "*" and kind in whole:
            why = f"if '{kind}/*' is present, must not specify {resource}"
            faults.append(fields.invalid(where, resource, why))
        if kind != "*" and below in everywhere:
            why = f"if '*/{below}' is present, must not specify {resource}"
            faults.append(fields.invalid(where, resource, why))
    if "*/*" in resources and len(resources) > 1:
        why = "if '*/*' is present, must not specify other resources"
        faults.append(fields.invalid(path, list(resources), why))
    if "*" in resources and any("/" not in r and r != "*" for r in resources):
        why = "if '*' is present, must not specify other resources without subresources"
        faults.append(fields.invalid(path, list(resources), why))


def _check_client(client: Object, path: str, faults: Faults) -> None:
    url, service = client.get("url"), client.get("service")
    if (url is None) == (service is None):
        why = "exactly one of url or service is required"
        faults.append(fields.required(path, why))
        return
    if url is not None:
        _check_url(url, f"{path}.url", faults)
    else:
        _check_service(service or {}, path, faults)


def _check_service(service: Object, path: str, faults: Faults) -> None:
    for name in ("name", "namespace"):
        if not service.get(name):
            why = f"service {name} is required"
            faults.append(fields.required(f"{path}.service.{name}", why))
    if (port := service.get("port")) is not None and not 1 <= port <= 65535:
        why = f"port is not valid: {fields.between(1, 65535)}"
        faults.append(fields.invalid(f"{path}.service.port", port, why))


def _check_url(url: str, path: str, faults: Faults) -> None:
    form = "; desired format: https://host[/path]"
    try:
        parts = urlsplit(url)
    except ValueError as error:
        why = f"url must be a valid URL: {error}{form}"
        faults.append(fields.required(path, why))
        return
    if parts.scheme != "https":
        why = f"'https' is the only allowed URL scheme{form}"
        faults.append(fields.invalid(path, parts.scheme, why))
    if not parts.netloc:
        faults.append(fields.invalid(path, parts.netloc, f"host must be specified{form}"))
    if "@" in parts.netloc:
        user = parts.netloc.rpartition("@")[0]
        faults.append(fields.invalid(path, user, "user information is not permitted in the URL"))
    if parts.fragment:
        why = "fragments are not permitted in the URL"
        faults.append(fields.invalid(path, parts.fragment, why))
    if parts.query:
        why = "query parameters are not permitted in the URL"
        faults.append(fields.invalid(path, parts.query, why))


def _check_versions(versions: Sequence[str], path: str, faults: Faults) -> None:
    where = f"{path}.admissionReviewVersions"
    if not versions:
        why = f"must specify one of {', '.join(_VERSIONS)}"
        faults.append(fields.required(where, why))
        return
    for index, version in enumerate(versions):
        if version in versions[:index]:
            faults.append(fields.invalid(f"{where}[{index}]", version, "duplicate version"))
            continue
        checks.check(names.is_dns1035_label, version, f"{where}[{index}]", faults)
    if not set(versions) & set(_VERSIONS):
        why = f"must include at least one of {', '.join(_VERSIONS)}"
        faults.append(fields.invalid(where, list(versions), why))


def check_conditions(
    conditions: Sequence[Object],
    path: str,
    faults: Faults,
    names_of_variables: frozenset[str] = CONDITION_NAMES,
) -> None:
    """Faults of ``matchConditions``."""
    if len(conditions) > _CONDITIONS_LIMIT:
        faults.append(fields.too_many(path, len(conditions), _CONDITIONS_LIMIT))
    seen: set[str] = set()
    for index, condition in enumerate(conditions):
        where, name = f"{path}[{index}]", condition.get("name", "")
        expression = condition.get("expression", "")
        if not expression.strip():
            faults.append(fields.required(f"{where}.expression"))
        check_expression(expression, f"{where}.expression", names_of_variables, faults)
        if not name:
            faults.append(fields.required(f"{where}.name"))
        else:
            checks.qualified_name(name, f"{where}.name", faults)
            if name in seen:
                faults.append(fields.duplicate(f"{where}.name", name))
            seen.add(name)
