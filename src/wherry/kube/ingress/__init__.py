"""Ingress: requests from outside are led to Services by host and path, by an nginx that we drive.

From what users wrote to what nginx reads, in this order:

- ``world`` is what there is in the cluster, ``flags`` what the controller was told itself.
- ``annotations`` and ``common`` (the ConfigMap) say which wishes there are, ``values`` reads each,
  and ``options`` are what comes out.
- ``build`` makes a ``model`` of servers and locations: ``backends`` finds their endpoints,
  ``secrets`` what they need of Secrets, which ``certificates`` judges.
- ``render`` writes it as an nginx configuration: ``head`` what is above the servers, and for
  locations ``guards``, ``logins``, ``endpoints``, ``affinity``, ``canaries`` and ``pages``.
  ``text`` quotes what users wrote. ``settings`` are where nginx runs.
- ``nginx`` keeps the process, ``orphans`` those whose master was killed.

``controller`` is the loop around them; ``addresses`` are what ``statuses`` writes into Ingresses,
where ``leadership`` says that it is this controller who writes.
``manifests`` are for those who want it in pods.
(https://kubernetes.io/docs/concepts/services-networking/ingress/)
"""
