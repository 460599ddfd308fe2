"""A quota over random histories: two servers charge it, store late, fail or die, pods end and go,
and the controller counts what it saw some time ago. What is used is never said to be less than it
is, so nobody is let in where there is no room; and in the end it is said as it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from wherry.kube.api import amounts, meta
from wherry.kube.api.amounts import Amounts
from wherry.kube.api.errors import StatusError
from wherry.kube.api.quantity import ZERO
from wherry.kube.api.quota import reservations, usage
from wherry.kube.api.quota.reservations import Reservation
from wherry.kube.api.resources import PODS
from wherry.kube.apiserver.admission.attributes import Attributes
from wherry.kube.apiserver.admission.quota_check import Account, Limited, charges
from wherry.kube.apiserver.objects import Stored
from wherry.kube.apiserver.request import User
from wherry.kube.client.transport import Object
from wherry.kube.controllers.resource_quota import recount

START = 1_800_000_000.0
SERVERS = 2
PATIENCE = 25.0  # seconds after which whoever has not written yet gives up

ACTS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "read",
                "read",
                "admit",
                "admit",
                "admit",
                "store",
                "store",
                "fail",
                "die",
                "finish",
                "delete",
                "delete",
                "take",
                "list",
                "count",
                "count",
                "wait",
                "limit",
                "restart",
            ]
        ),
        st.integers(0, 19),
    ),
    max_size=60,
)


@dataclass
class InFlight:
    pod: Object
    server: int
    since: float


@dataclass
class Round:
    """A count by the controller that is under way."""

    quota: Object
    since: float
    pods: list[Object] | None = None


@dataclass
class History:
    now: float = START
    made: int = 0
    pods: dict[str, Object] = field(default_factory=dict)
    in_flight: dict[str, InFlight] = field(default_factory=dict)
    copies: dict[int, Object] = field(default_factory=dict)
    """The quota as each server knows it."""
    gone: set[str] = field(default_factory=set)
    """Pods whose end the controller saw."""
    round: Round | None = None

    def __post_init__(self) -> None:
        metadata = {"name": "q", "namespace": "default"}
        empty = {"metadata": metadata, "spec": {"hard": {"pods": "4", "requests.cpu": "1"}}}
        self.quota, _ = recount(empty, {PODS: []}, self.now)

    # -- servers

    def read(self, number: int) -> None:
        self.copies[number % SERVERS] = self.quota

    def admit(self, number: int) -> None:
        """A server judges by its copy, which may be old, and writes if nobody else did."""
        server = number % SERVERS
        if number > 5:
            self.read(server)
        copy = self.copies.setdefault(server, self.quota)
        self.made += 1
        pod = new_pod(f"p{self.made}", f"{100 * (number % 5)}m")
        attributes = Attributes("CREATE", PODS, "", "default", meta.name(pod), User("u"), pod)
        account = Account(Stored("q", 1, object=copy))
        try:
            charged = charges(attributes, [account], Limited(), self.now)
        except StatusError as error:
            assert error.code == 403
            return
        assert charged, "every pod uses something"
        for each, charge in charged:
            until = self.now + reservations.SECONDS
            each.charge(meta.uid(pod), Reservation(charge, until))
        mine = {uid for uid in account.noted if uid in self.pods and self.served_by(uid) == server}
        account.forget(mine)
        if copy is self.quota:
            self.quota = self.copies[server] = account.object()
            self.in_flight[meta.uid(pod)] = InFlight(pod, server, self.now)
            hard = amounts.read(self.quota["status"]["hard"])
            used = self.used_really()
            assert all(used[name] <= hard[name] for name in hard), "there was no room"

    def served_by(self, uid: str) -> int:
        return int(self.pods[uid]["metadata"]["annotations"]["server"])

    def store(self, uid: str) -> None:
        flight = self.in_flight.pop(uid)
        metadata = {
            **flight.pod["metadata"],
            "resourceVersion": "7",
            "annotations": {"server": str(flight.server)},
        }
        self.pods[uid] = {**flight.pod, "metadata": metadata}

    def fail(self, uid: str) -> None:
        """The write did not take place: the charge is given back."""
        del self.in_flight[uid]
        account = Account(Stored("q", 1, object=self.quota))
        if account.give_back(uid):
            self.quota = account.object()

    # -- the controller

    def take(self) -> None:
        self.round = Round(self.quota, self.now)

    def list(self) -> None:
        if self.round is not None and self.round.pods is None:
            self.round.pods = list(self.pods.values())

    def count(self) -> None:
        if self.round is None:
            self.take()
        self.list()
        found, self.round = self.round, None
        assert found is not None and found.pods is not None
        counted, _ = recount(found.quota, {PODS: found.pods}, self.now, self.gone)
        if found.quota is self.quota and counted != self.quota:
            self.quota = counted

    # -- time and people

    def wait(self, seconds: float) -> None:
        self.now += seconds
        for uid, flight in list(self.in_flight.items()):
            if self.now - flight.since > PATIENCE:
                self.fail(uid)
        if self.round is not None and self.now - self.round.since > PATIENCE:
            self.round = None

    def limit(self, pods: int) -> None:
        hard = {"pods": str(pods % 7), "requests.cpu": "1"}
        self.quota = {**self.quota, "spec": {"hard": hard}}

    def act(self, what: str, number: int) -> None:
        match what:
            case "read" | "admit" | "limit" | "wait":
                getattr(self, what)(number)
            case "take" | "list" | "count":
                getattr(self, what)()
            case "restart":  # of the controller: what it remembers is lost
                self.gone.clear()
                self.round = None
            case "store" | "fail" | "die" if self.in_flight:
                uid = sorted(self.in_flight)[number % len(self.in_flight)]
                if what == "die":
                    del self.in_flight[uid]
                else:
                    getattr(self, what)(uid)
            case "finish" | "delete" if self.pods:
                uid = sorted(self.pods)[number % len(self.pods)]
                if what == "finish":
                    self.pods[uid] = {**self.pods[uid], "status": {"phase": "Succeeded"}}
                else:
                    del self.pods[uid]
                    self.gone.add(uid)

    # -- what holds

    def used_really(self) -> Amounts:
        coming = [flight.pod for flight in self.in_flight.values()]
        return usage.total(self.quota, PODS, [*self.pods.values(), *coming], self.now)

    def check(self) -> None:
        said, really = amounts.read(self.quota["status"]["used"]), self.used_really()
        for name, amount in really.items():
            assert said[name] >= amount, f"of {name} more is used than it says"
        assert all(amount >= ZERO for amount in said.values())


def new_pod(uid: str, cpu: str) -> Any:
    container = {"name": "c", "resources": {"requests": {"cpu": cpu}}}
    metadata = {"name": uid, "uid": uid, "namespace": "default"}
    return {"metadata": metadata, "spec": {"containers": [container]}, "status": {}}


@settings(max_examples=400)
@given(ACTS)
def test_what_is_used_is_never_said_to_be_less_and_in_the_end_as_it_is(
    acts: list[tuple[str, int]],
) -> None:
    history = History()
    for what, number in acts:
        history.act(what, number)
        history.check()
    history.wait(PATIENCE + 1)
    history.act("count", 0)
    if not {"die", "restart"} & {what for what, _ in acts}:
        used = amounts.read(history.quota["status"]["used"])
        assert used == history.used_really(), "what is seen to be gone is given back at once"
    history.wait(2 * reservations.SECONDS)  # whoever died is believed no longer
    history.act("take", 0)
    history.act("count", 0)
    assert not history.in_flight
    assert not reservations.read(history.quota)
    assert history.quota["status"]["hard"] == history.quota["spec"]["hard"]
    assert amounts.read(history.quota["status"]["used"]) == history.used_really()
    history.act("read", 0)
    before = history.used_really()["pods"]
    history.act("admit", 0)
    room = amounts.read(history.quota["spec"]["hard"])["pods"] > before
    assert bool(history.in_flight) == room, "whoever has room is let in, and nobody else"
