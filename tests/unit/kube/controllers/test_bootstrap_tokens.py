from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cluster import Cluster

from wherry.kube.api import bootstrap
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import CONFIG_MAPS, SECRETS

TOKEN = "abcdef.0123456789abcdef"
INFO = bootstrap.cluster_info("https://192.0.2.1:6443", "PEM")
SIGNED = "jws-kubeconfig-abcdef"


async def test_the_info_is_signed_by_each_token_as_they_come_and_go() -> None:
    async with Cluster("bootstrap-signer-controller", kubelet=False) as cluster:
        data: dict[str, str] = {}

        async def shown(present: bool) -> None:
            async def look() -> bool:
                nonlocal data
                found = await cluster.client.get(CONFIG_MAPS, "cluster-info", "kube-public")
                data = found["data"]
                return (SIGNED in data) == present

            for _ in range(200):
                if await look():
                    return
                await cluster.until(lambda: True)
            raise AssertionError(data)

        await cluster.client.create(CONFIG_MAPS, INFO)
        await cluster.client.create(SECRETS, bootstrap.secret(TOKEN, expires=None))
        await shown(True)
        content = data["kubeconfig"]
        assert bootstrap.verified(data[SIGNED], content, *bootstrap.split(TOKEN))
        await cluster.client.delete(SECRETS, "bootstrap-token-abcdef", "kube-system")
        await shown(False)


async def test_tokens_are_removed_when_their_time_is_over() -> None:
    async with Cluster("token-cleaner-controller", kubelet=False) as cluster:
        now = datetime.now(UTC)
        ended = bootstrap.secret("ended0.0123456789abcdef", expires=now - timedelta(hours=1))
        for body in (
            ended,
            bootstrap.secret("later0.0123456789abcdef", expires=now + timedelta(hours=1)),
            bootstrap.secret(TOKEN, expires=None),
            {**ended, "type": "Opaque", "metadata": {"name": "x", "namespace": "kube-system"}},
        ):
            await cluster.client.create(SECRETS, body)

        async def names() -> set[str]:
            listed = await cluster.client.list(SECRETS, "kube-system")
            return {o["metadata"]["name"] for o in listed["items"]}

        for _ in range(200):
            try:
                await cluster.client.get(SECRETS, "bootstrap-token-ended0", "kube-system")
            except StatusError:
                break
            await cluster.until(lambda: True)
        assert await names() == {"bootstrap-token-later0", "bootstrap-token-abcdef", "x"}
