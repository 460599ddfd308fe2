"""The container engine: images, containers, networks and volumes, behind two doors.

``api`` speaks Docker's Engine HTTP API; ``cri`` offers the same containers to a kubelet in the
words of the Container Runtime Interface. Both stand on ``container``, ``image`` and ``network``;
those start processes only through ``wherry.runtime`` and touch the network only through
``wherry.net``.
"""
