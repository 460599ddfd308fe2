from __future__ import annotations

import pytest
from fake_api import FakeAPI

from wherry.kube.client.client import Client
from wherry.kube.controllers import CONTROLLERS, Options, UnknownController, run_controllers, select


def test_every_controller_has_a_name_of_its_own():
    assert len({controller.name for controller in CONTROLLERS}) == len(CONTROLLERS)


def test_controllers_are_switched_on_and_off_by_name():
    assert select(("*",)) == list(CONTROLLERS)
    names = [c.name for c in select(("deployment-controller", "namespace-controller"))]
    assert names == ["deployment-controller", "namespace-controller"]
    without = {c.name for c in select(("*", "-node-ipam-controller"))}
    assert without == {c.name for c in CONTROLLERS} - {"node-ipam-controller"}


@pytest.mark.parametrize("name", ["nothing", "-nothing"])
async def test_a_name_that_no_controller_has_is_refused(name: str):
    with pytest.raises(UnknownController, match='"nothing" is not in the list'):
        await run_controllers(Client(FakeAPI()), Options(enabled=("*", name)))
