"""How strictly the kernel judges TCP packets beside the window of their connection.

Strictly, such a packet belongs to no connection (``INVALID``), so nothing translates it back; what
is liberal takes it for a part of its connection, all but resets. It holds for the whole network
namespace. https://docs.kernel.org/networking/nf_conntrack-sysctl.html
"""

from __future__ import annotations

from pathlib import Path

_SETTING = Path("/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal")


def is_liberal() -> bool:
    """Whether it is liberal now; not where nothing is tracked."""
    try:
        return _SETTING.read_text().strip() != "0"
    except FileNotFoundError:
        return False


def be_liberal() -> None:
    """Have it be liberal from now on, for everybody on this machine.

    Raises:
        OSError: the kernel tracks nothing, or the setting is not ours to change.
    """
    if not is_liberal():
        _SETTING.write_text("1")
