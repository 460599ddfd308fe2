"""The kernel's network: bridges, veth pairs, namespaces, addresses, routes, nftables.

The only code that touches it. Everything made here carries the instance's own names, so that
instances, and foreign rules, live side by side and one can be removed without a trace.
"""
