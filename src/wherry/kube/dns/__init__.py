"""The cluster's name server: names for Services and the pods behind them.

``names`` says which names a Service has, ``zone`` keeps them all, ``answers`` finds there what is
said to a question, ``forwarding`` asks other servers and remembers, ``upstreams`` says whom,
``settings`` reads the ConfigMap, ``listening`` has the sockets, ``sharing`` is how clients share
what there is, and ``server`` is the way of a question through these. Messages are read and written
by ``wire.dns``.

They are a process of their own (``__main__``), so that a busy node delays no answer and a killed
one stops none. ``following`` is what the node knows, ``telling`` the words in which the process
hears of it, and ``keeping`` starts it, finds it again, and ends it.

Kubernetes DNS specification 1.1:
https://github.com/kubernetes/dns/blob/master/docs/specification.md
"""
