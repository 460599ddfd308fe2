"""What nftables does with packets that go through tunnels (``vxlan``), as text for nft.

The machine's own show its address inside, as no other finds its way back; and TCP is told what
fits.
"""

from __future__ import annotations


def rules(table: str, device: str, pod_range: str) -> str:
    """Both families' tables; ``pod_range`` has a comma where pods have addresses of both."""
    return "".join(_of_family(table, device, cidr) for cidr in pod_range.split(","))


def no_rules(table: str) -> str:
    """Without those tables, whether they are there or not."""
    return "".join(f"table {f} {table}\ndelete table {f} {table}\n" for f in ("ip", "ip6"))


def _of_family(table: str, device: str, cidr: str) -> str:
    family = "ip6" if ":" in cidr else "ip"
    return f"""table {family} {table} {{
 chain postrouting {{
  type nat hook postrouting priority srcnat; policy accept;
  oifname "{device}" {family} saddr != {cidr} masquerade
 }}
 chain forward {{
  type filter hook forward priority mangle; policy accept;
  oifname "{device}" tcp flags syn tcp option maxseg size set rt mtu
 }}
}}
"""
