"""Networks: which there are, who has which address on them, which ports the host answers for.

``networks`` is the service; ``ports`` and ``network`` are what it decides with. Links, namespaces
and firewall rules are made by ``wherry.net`` alone.
"""
