"""The node's agent: pods bound to this node become containers, and what they do becomes status.

One module a duty. ``kubelet`` puts them together; ``worker`` is the life of one pod, in which
``actions`` decides (purely) what to do next and ``status`` (purely) what to tell; ``view`` knows
what runs, from the runtime's events; ``containers``, ``environment``, ``resources`` and ``volumes``
make what a container is made from; ``probes`` and ``hooks`` ask the containers; ``node`` tells of
the machine; ``server`` answers logs, exec, attach and port-forward.

It reaches the cluster through ``kube.client`` alone and containers through CRI alone
(``engine.cri.types``).
"""
