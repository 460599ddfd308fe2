"""NetworkPolicies: how long the kernel's rules take to follow a change, in a network of their own.

500 policies, each with rules of its own, select among 200 pods of this node in 20 namespaces.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from typing import Any

from benchmarks.harness import ROOT, Figure
from wherry.kube.network_policy.elements import Pod
from wherry.kube.network_policy.model import Model
from wherry.kube.network_policy.policies import read
from wherry.net.nftables.nft import Nftables
from wherry.net.policy_table import PolicyTable

POLICIES, PODS, NAMESPACES = 500, 200, 20
RUNS = 20


def changes() -> list[Figure]:
    """All at once, then one policy and one pod more."""
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-m", "benchmarks.network_policy"],
        stdout=subprocess.PIPE,
        check=True,
        cwd=ROOT,
    )
    values = json.loads(done.stdout)
    return [
        Figure(f"{POLICIES} policies, {PODS} pods, anew", values["all"], "s", 1),
        Figure("policy changed, rules in force", values["policy"], "s", 0.1),
        Figure("pod came, rules in force", values["pod"], "s", 0.1),
    ]


def _policy(number: int, port: int = 80) -> dict[str, Any]:
    peer = {
        "namespaceSelector": {"matchLabels": {"team": f"t{number % NAMESPACES}"}},
        "podSelector": {"matchLabels": {"app": f"a{number % 7}"}},
    }
    block = {"ipBlock": {"cidr": "192.0.2.0/24", "except": [f"192.0.2.{number % 250}/32"]}}
    return {
        "metadata": {"namespace": f"n{number % NAMESPACES}", "name": f"p{number}"},
        "spec": {
            "podSelector": {"matchLabels": {"app": f"a{number % 5}"}},
            "ingress": [{"from": [peer, block], "ports": [{"port": port}, {"port": "web"}]}],
        },
    }


def _pod(number: int) -> Pod:
    address = f"10.0.{number // 200}.{number % 200 + 1}"
    labels = {"app": f"a{number % 7}"}
    ports = (("web", "tcp", 8080),)
    return Pod(f"n{number % NAMESPACES}", labels, (address,), local=True, ports=ports)


async def _measure() -> dict[str, list[float]]:
    nft = Nftables()
    values: dict[str, list[float]] = {"all": [], "policy": [], "pod": []}
    for _ in range(5):
        began = time.perf_counter()
        model, table = Model(), PolicyTable(nft, "wherry-bench")
        for number in range(NAMESPACES):
            model.set_namespace(f"n{number}", {"team": f"t{number}"})
        for number in range(PODS):
            model.set_pod(f"n{number % NAMESPACES}/{number}", _pod(number))
        for number in range(POLICIES):
            model.set_policy(f"n{number % NAMESPACES}/p{number}", read(_policy(number)))
        await table.apply(model.rules, model.take_touched())
        values["all"].append(time.perf_counter() - began)
    for run in range(RUNS):
        began = time.perf_counter()
        model.set_policy("n0/p0", read(_policy(0, 1000 + run)))
        await table.apply(model.rules, model.take_touched())
        values["policy"].append(time.perf_counter() - began)
        began = time.perf_counter()
        model.set_pod(f"n{run % NAMESPACES}/{PODS + run}", _pod(PODS + run))
        await table.apply(model.rules, model.take_touched())
        values["pod"].append(time.perf_counter() - began)
    return values


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_measure())))
