"""Addresses of Services: who knocks there is led to one of the endpoints.

``ports`` is what is wanted, after all policies have been judged; whoever makes a ``ServicePort``
(the proxy of ``kube``) says nothing of rules. There is a way to make it true for each mode of
kube-proxy:

- ``nftables``: elements of maps, under rules that never change.
- ``iptables``: a chain a Service and one an endpoint.
- ``userspace``: a process, to which those maps lead everybody.

Besides, in every mode: ``local_routing`` has this machine's own connections meet the rules at all,
``stale_flows`` ends what datagrams were translated to before a change.
"""
