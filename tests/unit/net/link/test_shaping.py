"""What the kernel is told of a limit."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from wherry.net import netlink
from wherry.net.link import shaping


@given(st.integers(1, 10**15))
def test_a_bucket_lets_so_much_through_and_holds_a_segment(rate: int) -> None:
    message = shaping.bucket(7, rate)
    assert struct.unpack_from("=i", message, 4) == (7,)
    parts = netlink.attributes(message[20:])
    assert parts[shaping.TCA_KIND] == b"tbf\0"
    options = netlink.attributes(parts[shaping.TCA_OPTIONS])
    (speed,) = struct.unpack("=Q", options[shaping.TCA_TBF_RATE64])
    assert speed == max(rate // 8, 1)
    (burst,) = struct.unpack("=I", options[shaping.TCA_TBF_BURST])
    parameters = options[shaping.TCA_TBF_PARMS]
    assert len(parameters) == 36
    (queue,) = struct.unpack_from("=I", parameters, 24)
    assert 64 << 10 <= burst <= queue
