"""The kernel's network: the only code that touches it.

Everything made here carries the instance's own names, so that instances, and foreign rules, live
side by side and one can be removed without a trace. From the bottom to the top:

- How the kernel is spoken to: ``netlink``, its messages; ``namespaces``, in which of its networks.
- What it can do, a folder each: ``link`` is what packets travel, ``nftables`` what judges and
  translates them, ``conntrack`` what is remembered of connections. Where the kernel cannot lead, a
  process does: ``relay``.
- What is made of that: ``firewall`` for containers and their published ports, ``policy_table`` for
  NetworkPolicies, ``service`` for Services, ``name_sockets`` for who answers containers' questions
  (``name_query``: how other name servers are asked).
"""
