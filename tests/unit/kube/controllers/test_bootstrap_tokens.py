from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cluster import Cluster

from wherry.kube.api import bootstrap, meta
from wherry.kube.api.resources import CONFIG_MAPS, SECRETS

TOKEN = "abcdef.0123456789abcdef"
INFO = bootstrap.cluster_info("https://192.0.2.1:6443", "PEM")
SIGNED = "jws-kubeconfig-abcdef"


async def test_the_info_is_signed_by_each_token_as_they_come_and_go() -> None:
    async with Cluster("bootstrap-signer-controller", kubelet=False) as cluster:

        def data() -> dict[str, str]:
            found = cluster.api.get(CONFIG_MAPS, "cluster-info", "kube-public")
            assert found is not None
            return found["data"]

        await cluster.client.create(CONFIG_MAPS, INFO)
        await cluster.client.create(SECRETS, bootstrap.secret(TOKEN, expires=None))
        await cluster.until(lambda: SIGNED in data())
        content = data()["kubeconfig"]
        assert bootstrap.verified(data()[SIGNED], content, *bootstrap.split(TOKEN))
        await cluster.client.delete(SECRETS, "bootstrap-token-abcdef", "kube-system")
        await cluster.until(lambda: SIGNED not in data())


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

        def names() -> set[str]:
            return {meta.name(o) for o in cluster.api.find(SECRETS, "kube-system")}

        await cluster.until(lambda: "bootstrap-token-ended0" not in names())
        await cluster.settle()
        assert names() == {"bootstrap-token-later0", "bootstrap-token-abcdef", "x"}
