"""Ingress: requests from outside are led to Services by host and path, by an nginx that we drive.

``annotations`` reads what a user wishes, ``build`` makes a ``model`` of servers and locations from
the cluster's objects, ``render`` writes it as an nginx configuration, ``nginx`` keeps the process,
and ``controller`` is the loop around them.
(https://kubernetes.io/docs/concepts/services-networking/ingress/)
"""
