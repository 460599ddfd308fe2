"""What packets travel, made and read over rtnetlink(7).

- ``links``: the machine's own ends, bridges above all, and what all links have: names, hardware
  addresses, MTU, counters.
- ``cables``: from there into a container's namespace (veth, macvlan, ipvlan), with the addresses
  and routes in it. ``shaping``: how much goes through one.
- ``routes``: which ranges are refused at home, and which lead to other machines; ``vxlan`` where no
  route can, with the rules it needs (``tunnel_rules``).
- ``changes``: told when others change any of that.
"""
