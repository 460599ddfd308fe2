"""A small world of Services, and Ingresses in it."""

from __future__ import annotations

import base64

from wherry.kube.ingress import certificates
from wherry.kube.ingress.annotations import PREFIX
from wherry.kube.ingress.build import build
from wherry.kube.ingress.model import Configuration, Location
from wherry.kube.ingress.render import render
from wherry.kube.ingress.settings import Settings
from wherry.kube.ingress.world import World

SETTINGS = Settings("/run/ingress", resolver="10.96.0.10")

SERVICES = {
    ("shop", "web"): {"spec": {"ports": [{"name": "http", "port": 80}]}},
    ("shop", "api"): {"spec": {"ports": [{"port": 8080}]}},
    ("shop", "out"): {"spec": {"type": "ExternalName", "externalName": "example.com"}},
}


def slice_(port: int, *addresses: str, name: str = "", **conditions: bool) -> dict:
    endpoints = [{"addresses": [address], "conditions": conditions} for address in addresses]
    return {"ports": [{"name": name, "port": port}], "endpoints": endpoints}


SLICES = {
    ("shop", "web"): [slice_(8000, "10.0.0.2", "10.0.0.1", name="http")],
    ("shop", "api"): [slice_(9000, "10.0.0.3", ready=False, serving=True, terminating=True)],
}


def annotations(**wishes: str) -> dict[str, str]:
    return {PREFIX + name.replace("_", "-"): value for name, value in wishes.items()}


def path(path: str, service: str, port: int | str = 80, type: str = "Prefix") -> dict:
    wanted = {"number": port} if isinstance(port, int) else {"name": port}
    backend = {"service": {"name": service, "port": wanted}}
    return {"path": path, "pathType": type, "backend": backend}


def ingress(name: str, host: str, *paths: dict, spec: dict | None = None, **wishes: str) -> dict:
    rules = [{"host": host, "http": {"paths": list(paths)}}] if paths else []
    return {
        "metadata": {
            "name": name,
            "namespace": "shop",
            "annotations": annotations(**wishes),
            "creationTimestamp": name,
        },
        "spec": {"rules": rules, **(spec or {})},
    }


def world(*ingresses: dict, secrets: dict[str, dict] | None = None) -> World:
    held = {("shop", name): secret for name, secret in (secrets or {}).items()}
    return World(
        ingresses,
        lambda namespace, name: SERVICES.get((namespace, name)),
        lambda namespace, name: SLICES.get((namespace, name), []),
        lambda namespace, name: held.get((namespace, name)),
    )


def only(configuration: Configuration, host: str, at: str = "/") -> Location:
    (found,) = (
        location
        for location in configuration.servers[host].locations.values()
        if location.path == at
    )
    return found


def text(*ingresses: dict, secrets: dict[str, dict] | None = None) -> str:
    return render(build(world(*ingresses, secrets=secrets)), SETTINGS)


def certificate() -> dict:
    pem = certificates.default()
    cut = pem.index(b"-----BEGIN PRIVATE")
    encode = base64.b64encode
    data = {"tls.crt": encode(pem[:cut]).decode(), "tls.key": encode(pem[cut:]).decode()}
    return {"data": data}
