"""Aggregated API servers: group versions that somebody else serves, as APIServices say.

``services``
    follows the APIServices: which group versions are served elsewhere, in which order groups come;
``registration``
    writes an APIService for each group version that is served here;
``remote``
    speaks to the other servers: who we are, whom we believe, where they are;
``availability``
    looks whether they answer, and writes that down;
``proxy``
    hands requests on;
``discovery``, ``openapi``
    what they serve and what we serve as one document.

Upstream: k8s.io/kube-aggregator.
"""
