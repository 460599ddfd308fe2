"""Which Ingresses are left out of a configuration that nginx does not take."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, cast

import pytest
from fake_api import FakeAPI
from hypothesis import given
from hypothesis import strategies as st

from wherry.kube.client.client import Client
from wherry.kube.client.informer import SharedInformers
from wherry.kube.ingress.addresses import Fixed
from wherry.kube.ingress.controller import IngressController
from wherry.kube.ingress.nginx import Nginx, NginxError
from wherry.kube.ingress.settings import Settings
from wherry.kube.ingress.world import World


class Judge:
    """An nginx that takes what ``takes`` says, by the hosts in the configuration."""

    pid = None

    def __init__(self, takes: Callable[[set[str]], bool]) -> None:
        self._takes = takes
        self._mind: Callable[[str], bool] = lambda _: True
        self.asked = 0

    def has_file(self, _: str) -> bool:
        return True

    def keep_files(self, _: object) -> None:
        """It has no files."""

    async def test(self, text: str) -> str:
        self.asked += 1
        words = text.replace(";", "").split()
        if not self._mind(text):
            return "no"
        return "" if self._takes({w for w in words if w.endswith(".example.com")}) else "no"


def world(names: Iterable[str]) -> World:
    def ingress(name: str) -> dict[str, Any]:
        rule = {"host": f"{name}.example.com", "http": {"paths": []}}
        metadata = {"name": name, "namespace": "shop", "creationTimestamp": name}
        return {"metadata": metadata, "spec": {"rules": [rule]}}

    return World([ingress(name) for name in names], lambda *_: None, lambda *_: (), lambda *_: None)


def controller_of(judge: Judge) -> IngressController:
    client = Client(FakeAPI())
    return IngressController(
        client,
        SharedInformers(client),
        cast(Nginx, judge),
        Settings("/run/ingress"),
        addresses=Fixed(()),
    )


async def left_out(
    judge: Judge, names: Iterable[str], controller: IngressController | None = None
) -> set[str]:
    controller = controller or controller_of(judge)
    configuration, text = await controller._acceptable(world(names))
    assert not await judge.test(text)
    problems = {
        key: said for key, found in configuration.problems.items() for said in found if said
    }
    assert all(said == "nginx refuses it: no" for said in problems.values())
    return {key.partition("/")[2] for key in problems}


NAMES = [f"n{number:02}" for number in range(40)]


async def test_the_later_of_two_that_do_not_go_together_is_left_out():
    pair = {"n07.example.com", "n31.example.com"}
    judge = Judge(lambda hosts: not pair <= hosts)
    assert await left_out(judge, reversed(NAMES)) == {"n31"}
    assert judge.asked < 15


async def test_when_nothing_is_taken_that_is_said():
    with pytest.raises(NginxError, match="no"):
        await left_out(Judge(lambda _: False), NAMES)
    with pytest.raises(NginxError, match="no"):
        await left_out(Judge(lambda _: False), [])


@given(st.sets(st.sampled_from(NAMES)), st.sets(st.sampled_from(NAMES)))
async def test_exactly_those_are_left_out_that_nginx_refuses(names: set[str], bad: set[str]):
    judge = Judge(lambda hosts: not any(f"{name}.example.com" in hosts for name in bad))
    assert await left_out(judge, names) == names & bad


async def test_one_that_stays_refused_is_not_searched_for_again():
    judge = Judge(lambda hosts: "n31.example.com" not in hosts)
    controller = controller_of(judge)
    assert await left_out(judge, NAMES, controller) == {"n31"}
    judge.asked = 0
    assert await left_out(judge, [*NAMES, "another"], controller) == {"n31"}
    assert judge.asked <= 4
    judge._takes = lambda hosts: "n07.example.com" not in hosts
    assert await left_out(judge, NAMES, controller) == {"n07"}
    judge._takes = lambda _: True
    assert await left_out(judge, NAMES, controller) == set()


async def test_settings_that_nginx_refuses_take_no_ingress_down():
    judge = Judge(lambda _: True)
    controller = controller_of(judge)
    judge._mind = lambda text: "keepalive_timeout 7s" not in text
    given = replace(world(["a"]), settings={"keep-alive": "7"})
    configuration, text = await controller._acceptable(given)
    assert configuration.unusable == ["nginx refuses it: no"]
    assert not configuration.problems and "server_name a.example.com" in text
