"""The metrics server: what nodes and pods use, as ``metrics.k8s.io/v1beta1``.

``samples``
    reads what a kubelet tells; pure;
``usage``
    keeps the last two samples of everything, and what was used between them; pure;
``scraper``
    asks all kubelets every 15 seconds;
``answers``
    objects, lists, tables, discovery, OpenAPI; pure;
``server``
    an aggregated API server that answers with these;
``manifest``
    what a cluster must hold so that it is reached.

The launcher runs it in the server's process; ``python -m wherry.kube.metrics`` runs it apart.
Upstream: kubernetes-sigs/metrics-server.
"""
