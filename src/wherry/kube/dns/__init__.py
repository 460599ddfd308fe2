"""The cluster's name server: names for Services and the pods behind them.

``names`` says which names a Service has, ``zone`` keeps them all, ``messages`` reads questions and
writes answers, ``forwarding`` asks other servers and remembers, ``settings`` reads the ConfigMap,
``listening`` has the sockets, and ``server`` is the way of a question through these.

Kubernetes DNS specification 1.1:
https://github.com/kubernetes/dns/blob/master/docs/specification.md
"""
