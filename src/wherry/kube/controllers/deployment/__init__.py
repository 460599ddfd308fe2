"""Deployment: one ReplicaSet for each revision of a template, and the way from one to the next.

``revisions`` knows which ReplicaSet is whose revision, ``rolling`` how many pods each may have,
``status`` what to report; ``plan`` puts the three together into what is to be done now, and
``controller`` does it. All but the last are pure functions.

Behaviour, names and messages follow kube-controller-manager's deployment controller
(https://kubernetes.io/docs/concepts/workloads/controllers/deployment/).
"""
