"""The proxy's rules in the kernel: whatever has happened, they are what a fresh start makes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PLAYER = Path(__file__).with_name("rules_in_namespace.py")


UNDER_FIRE = Path(__file__).with_name("datagrams_during_changes.py")
SCTP = Path(__file__).with_name("sctp_to_service.py")
BESIDE = Path(__file__).with_name("packets_beside_the_window.py")


def played(script: Path, *arguments: str) -> tuple[int, str, str]:
    """How a script in a network namespace of its own ends, and what it says."""
    argv = ["unshare", "-n", "sh", "-c", 'ip link set lo up; exec "$@"', "-"]
    argv += [sys.executable, str(script), *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=300)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("seed", range(3))
def test_any_history_ends_in_the_rules_of_a_fresh_start(seed: int) -> None:
    code, said, error = played(PLAYER, "nftables", str(seed))
    assert (code, said) == (0, "the same\n"), error


@pytest.mark.parametrize("seed", range(2))
def test_any_history_ends_in_the_chains_of_a_fresh_start(seed: int) -> None:
    code, said, error = played(PLAYER, "iptables", str(seed))
    assert (code, said) == (0, "the same\n"), error


@pytest.mark.parametrize("affinity", [0, 60])
def test_no_datagram_is_refused_while_endpoints_come_and_go(affinity: int) -> None:
    code, said, error = played(UNDER_FIRE, str(affinity))
    assert (code, said) == (0, "none was refused\n"), error


@pytest.mark.parametrize("mode", ["nftables", "iptables"])
def test_sctp_is_led_to_an_endpoint(mode: str) -> None:
    code, said, error = played(SCTP, mode)
    assert (code, said) == (0, "10.244.0.2:3868\n"), error


@pytest.mark.parametrize(
    ("mode", "tracking", "told"),
    [
        ("iptables", "strictly", "from nobody; goes on"),
        ("iptables", "liberally", "from 10.96.0.1; goes on"),
        # (As upstream's, which advises to track liberally.)
        ("nftables", "strictly", "from 10.244.0.2; is reset"),
    ],
)
def test_what_becomes_of_a_packet_beside_the_window(mode: str, tracking: str, told: str) -> None:
    code, said, error = played(BESIDE, mode, tracking)
    assert (code, said) == (0, f"{told}\n"), error
