"""Networks: which there are, who has which address on them, which ports the host answers for.

``networks`` is the service, ``documents`` what it has on the disk, ``places`` what containers have
on networks. They decide with ``creation`` and ``endpoints`` (requests judged), ``pools`` (ranges),
``allocation`` with ``address_pool`` (addresses) and ``ports``. A kind of network is a module of
``drivers``; ``cni`` are plugins of others in place of ours for pods, ``dns`` answers for names.

Links, namespaces and firewall rules are made by ``wherry.net`` alone.
"""
