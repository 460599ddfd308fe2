"""The proxy's rules in the kernel: whatever has happened, they are what a fresh start makes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PLAYER = Path(__file__).with_name("rules_in_namespace.py")


@pytest.mark.parametrize("seed", range(3))
def test_any_history_ends_in_the_rules_of_a_fresh_start(seed: int) -> None:
    argv = ["unshare", "-n", "sh", "-c", 'ip link set lo up; exec "$@"', "-"]
    argv += [sys.executable, str(PLAYER), str(seed)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=100)
    assert (done.returncode, done.stdout) == (0, "the same\n"), done.stderr
