"""The pods' network, where the kernel does not want it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from wherry.engine.cri.service import EngineRuntime
from wherry.engine.cri.types import POD_CIDR_IN_USE, CRIError
from wherry.engine.errors import Conflict
from wherry.net.nftables.nft import NftError


@pytest.mark.parametrize("refusal", [FileExistsError(17, "File exists"), NftError("no nat here")])
async def test_a_network_that_cannot_be_made_is_told_so_that_it_is_tried_again(
    refusal: Exception,
) -> None:
    async def refuse(cidrs: Any) -> None:
        raise refusal

    engine: Any = SimpleNamespace(networks=SimpleNamespace(set_pod_ranges=refuse))
    with pytest.raises(CRIError) as raised:
        await EngineRuntime(engine).update_runtime_config("10.244.0.0/24")
    assert raised.value.message == (
        f"NetworkReady=false message:the network 10.244.0.0/24 cannot be made: {refusal}"
    )


async def test_who_is_in_the_way_of_a_range_is_told_by_its_reason() -> None:
    async def refuse(cidrs: Any) -> None:
        raise Conflict("pods have addresses of 10.244.1.0/24")

    engine: Any = SimpleNamespace(networks=SimpleNamespace(set_pod_ranges=refuse))
    with pytest.raises(CRIError, match="pods have") as raised:
        await EngineRuntime(engine).update_runtime_config("10.244.0.0/24")
    assert raised.value.reason == POD_CIDR_IN_USE
