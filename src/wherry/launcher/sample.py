"""The sample: a tiny web image, two replicas of it behind a Service, and the page they serve.

It needs no network: the image is made from the host's static busybox. It is also a first example of
both clients: the Engine API over its unix socket, the Kubernetes API by our client library.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp

from wherry.engine.image import busybox
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import DEPLOYMENTS, SERVICES
from wherry.kube.client.client import Client
from wherry.kube.client.https import from_kubeconfig
from wherry.launcher.bootstrap import (
    BootstrapFailed,
    find_busybox,
    import_image,
)
from wherry.launcher.instance import Instance
from wherry.launcher.up import UpFailed

NAMESPACE = "default"
IMAGES = ("hello:1", "hello:2")
REPLICAS = 2
PORT = 8080
ROLLOUT_TIMEOUT = 60.0
FETCH_TIMEOUT = 10.0


def run(instance: Instance) -> Iterator[str]:
    """Make the image, deploy it, fetch the page; yields what happened, line by line.

    Raises:
        UpFailed: a step did not work; the text says which and why.
    """
    if instance.joined:
        raise UpFailed(f"the sample is started where the cluster's server is: {instance.joined}")
    yield f"image       {make_images(instance)}"
    yield from asyncio.run(_deploy_and_fetch(instance))


def make_images(instance: Instance) -> str:
    """Import the sample's images into the engine unless they are there; returns their names."""
    return asyncio.run(_make_images(instance.docker_socket))


async def _make_images(socket: Path) -> str:
    root = b""
    connector = aiohttp.UnixConnector(str(socket))
    async with aiohttp.ClientSession(connector=connector, base_url="http://docker") as session:
        for image in IMAGES:
            async with session.get(f"/images/{image}/json") as answer:
                if answer.status == 200:
                    continue
            try:
                root = root or busybox.root(find_busybox())
                await import_image(session, image, root, _changes(image))
            except BootstrapFailed as error:
                raise UpFailed(str(error)) from None
    return ", ".join(IMAGES)


def _changes(image: str) -> list[str]:
    page = f"echo Hello from $(hostname), image {image} > /www/index.html"
    # The first process of a container ignores SIGTERM unless it asks for it, and httpd does not.
    serve = f"trap 'exit 0' TERM; httpd -f -p {PORT} -h /www & wait"
    return [
        f'CMD ["sh", "-c", "{page}; {serve}"]',
        f"EXPOSE {PORT}",
        "ENV PATH=/bin",
    ]


async def _deploy_and_fetch(instance: Instance) -> list[str]:
    transport = from_kubeconfig(instance.kubeconfig)
    client = Client(transport)
    try:
        await _create_unless_there(client, DEPLOYMENTS, _deployment())
        service = await _create_unless_there(client, SERVICES, _service())
        async with asyncio.timeout(ROLLOUT_TIMEOUT):
            await _rolled_out(client)
        address = service["spec"]["clusterIP"]
        host = f"[{address}]" if ":" in address else address
        page = await _fetch(f"http://{host}/")
    except StatusError as error:
        raise UpFailed(f"the sample was refused: {error.message}") from error
    except TimeoutError:
        raise UpFailed(
            f"the sample was not ready after {ROLLOUT_TIMEOUT:.0f} s; "
            "`kubectl describe pods` tells why"
        ) from None
    finally:
        await transport.close()
    return [
        f"deployment  hello, {REPLICAS} replicas ready",
        f"service     hello at http://{host}",
        f"answer      {page.strip()}",
    ]


async def _create_unless_there(client: Client, resource: Any, wanted: dict[str, Any]) -> Any:
    try:
        return await client.create(resource, wanted, NAMESPACE)
    except StatusError as error:
        if error.reason != "AlreadyExists":
            raise
        return await client.get(resource, wanted["metadata"]["name"], NAMESPACE)


async def _rolled_out(client: Client) -> None:
    """Return when all replicas are available."""
    while True:
        async for deployment in _deployment_states(client):
            if deployment.get("status", {}).get("availableReplicas", 0) >= REPLICAS:
                return


async def _deployment_states(client: Client) -> AsyncIterator[dict[str, Any]]:
    """The sample's deployment as it is, then each change of it."""
    deployment = await client.get(DEPLOYMENTS, "hello", NAMESPACE)
    yield deployment
    changes = client.watch(
        DEPLOYMENTS,
        NAMESPACE,
        field_selector="metadata.name=hello",
        resource_version=deployment["metadata"]["resourceVersion"],
    )
    async for _, changed in changes:
        yield changed


async def _fetch(url: str) -> str:
    """The page at ``url``; a service is refused until the proxy has heard of its endpoints."""
    timeout = aiohttp.ClientTimeout(total=5)
    deadline = time.monotonic() + FETCH_TIMEOUT
    async with aiohttp.ClientSession(timeout=timeout) as session:
        while True:
            try:
                async with session.get(url) as answer:
                    return await answer.text()
            except (aiohttp.ClientError, TimeoutError) as error:
                if time.monotonic() > deadline:
                    raise UpFailed(f"{url} does not answer: {error}") from error
                await asyncio.sleep(0.02)


def _deployment() -> dict[str, Any]:
    labels = {"app": "hello"}
    container = {
        "name": "hello",
        "image": IMAGES[0],
        "ports": [{"containerPort": PORT}],
        "readinessProbe": {"httpGet": {"path": "/", "port": PORT}, "periodSeconds": 1},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "hello", "labels": labels},
        "spec": {
            "replicas": REPLICAS,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }


def _service() -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "hello", "labels": {"app": "hello"}},
        "spec": {"selector": {"app": "hello"}, "ports": [{"port": 80, "targetPort": PORT}]},
    }
