"""AlwaysPullImages: nobody runs an image that only others' credentials could pull."""

from __future__ import annotations

from wherry.kube.apiserver.admission.attributes import Attributes
from wherry.kube.apiserver.admission.context import Context

_FIELDS = ("initContainers", "containers", "ephemeralContainers")


def admit(attributes: Attributes, context: Context) -> None:
    for field in _FIELDS:
        for container in attributes.new["spec"].get(field) or ():
            container["imagePullPolicy"] = "Always"


def validate(attributes: Attributes, context: Context) -> None:
    for field in _FIELDS:
        for index, container in enumerate(attributes.new["spec"].get(field) or ()):
            policy = container.get("imagePullPolicy", "")
            if policy != "Always":
                raise attributes.forbidden(
                    f'spec.{field}[{index}].imagePullPolicy: Unsupported value: "{policy}": '
                    'supported values: "Always"'
                )
