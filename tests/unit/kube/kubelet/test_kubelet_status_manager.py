"""Statuses on their way to the API."""

from node_under_test import NodeUnderTest, make_pod

from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import PODS


def refused(code, reason):
    def before(method, path, body):
        if method == "PATCH" and path.endswith("/status"):
            raise StatusError(code, reason, "not that")

    return before


async def test_a_status_that_nobody_takes_does_not_keep_a_pod_that_has_ended(tmp_path):
    async with NodeUnderTest(tmp_path) as node:
        await node.run(make_pod())
        await node.until_ready()
        whole = node.api.request
        refuse = refused(422, "Invalid")

        async def request(method, path, **rest):
            refuse(method, path, rest.get("body"))
            return await whole(method, path, **rest)

        node.api.request = request
        await node.client.delete(PODS, "web", "default")
        await node.until(lambda: node.pod() is None)
