"""How fast Services become rules: the proxy's decision and the kernel's part, in a namespace.

Upstream's figures (1.20, iptables mode, on a machine like the one this was written on): 6.4 s for
the first programming, 7.2 s for one change.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.harness import Figure

ROOT = Path(__file__).parents[1]
ENDPOINTS, CHANGES = 5, 20


def rules() -> list[Figure]:
    """2,000 Services programmed at once; one endpoint more or less, then and with 10,000."""
    few, many = _measure(2000), _measure(10000)
    return [
        Figure("proxy: 2,000 services, first programming", few["first"], target=0.6),
        Figure("proxy: one change among 2,000 services", few["change"], target=0.02),
        Figure("proxy: one change among 10,000 services", many["change"], target=0.02),
        Figure("proxy: 2,000 services, taken over", few["again"]),
    ]


def chains() -> list[Figure]:
    """The same in mode iptables, for 2,000 Services."""
    found = _measure(2000, "iptables")
    return [
        Figure("mode iptables: 2,000 services, first programming", found["first"]),
        Figure("mode iptables: one change among 2,000 services", found["change"]),
        Figure("mode iptables: 2,000 services, taken over", found["again"]),
    ]


def _measure(count: int, mode: str = "nftables") -> dict[str, list[float]]:
    argv = ["unshare", "-n", sys.executable, "-m", "benchmarks.proxy", str(count), mode]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    result: dict[str, list[float]] = json.loads(done.stdout)
    return result


def _inside(count: int, mode: str) -> dict[str, list[float]]:
    import asyncio
    import time

    from wherry.kube.proxy.claims import Claims
    from wherry.kube.proxy.ports import Place, ports
    from wherry.net.nftables.nft import Nftables
    from wherry.net.service.iptables.chains import Names
    from wherry.net.service.iptables.tables import IptablesServices
    from wherry.net.service.nftables.tables import NftablesServices
    from wherry.net.service.ports import Key, ServicePort

    here = Place("node")

    def service(number: int) -> dict[str, object]:
        spec = {
            "clusterIP": f"10.96.{number // 250}.{number % 250 + 1}",
            "ports": [{"port": 80, "protocol": "TCP"}],
        }
        return {"metadata": {"name": f"s{number}", "namespace": "default"}, "spec": spec}

    def slice_(number: int, endpoints: int) -> dict[str, object]:
        return {
            "addressType": "IPv4",
            "ports": [{"port": 8080, "protocol": "TCP"}],
            "endpoints": [
                {"addresses": [f"10.{128 + k}.{number // 250}.{number % 250 + 1}"]}
                for k in range(endpoints)
            ],
        }

    def claim(claims: Claims, number: int, endpoints: int) -> dict[Key, ServicePort | None]:
        wanted = ports(service(number), [slice_(number, endpoints)], here)
        return claims.set(f"default/s{number}", "2026", wanted)

    async def measure() -> dict[str, list[float]]:
        nft = Nftables()
        found: dict[str, list[float]] = {"first": [], "change": [], "again": []}

        def fresh() -> NftablesServices | IptablesServices:
            if mode == "iptables":
                ranges = {"services": ["10.96.0.0/16"], "pods": ["10.128.0.0/9"]}
                return IptablesServices(Names("BENCH"), **ranges)
            return NftablesServices(nft, "bench", services=["10.96.0.0/16"], pods=["10.128.0.0/9"])

        claims = Claims()
        for _ in range(3):
            services, claims = fresh(), Claims()
            await services.remove()
            begun = time.perf_counter()
            for number in range(count):
                claim(claims, number, ENDPOINTS)
            await services.start(claims.all())
            found["first"].append(time.perf_counter() - begun)
        for turn in range(CHANGES):
            begun = time.perf_counter()
            changes = claim(claims, turn // 2, ENDPOINTS - 1 + turn % 2)
            await services.change(changes)
            found["change"].append(time.perf_counter() - begun)
        begun = time.perf_counter()
        await fresh().start(claims.all())
        found["again"].append(time.perf_counter() - begun)
        return found

    return asyncio.run(measure())


if __name__ == "__main__":
    print(json.dumps(_inside(int(sys.argv[1]), sys.argv[2])))
