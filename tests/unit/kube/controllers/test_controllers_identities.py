"""Each controller acts as a ServiceAccount that the default roles know."""

from __future__ import annotations

import pytest

from wherry.kube.apiserver.authz.defaults import objects
from wherry.kube.controllers import CONTROLLERS, Controller

BOUND = {
    subject["name"]
    for _, o in objects()
    for subject in o.get("subjects") or ()
    if subject["kind"] == "ServiceAccount"
}


@pytest.mark.parametrize("controller", CONTROLLERS, ids=lambda c: c.name)
def test_its_account_has_a_role(controller: type[Controller]) -> None:
    assert controller.identity() is None or controller.identity() in BOUND
