"""Garbage collector: what belongs to something goes with it.

``graph`` holds who owns whom, ``decision`` says what an object's owners mean for it (both pure),
``controller`` follows every resource and acts
(https://kubernetes.io/docs/concepts/architecture/garbage-collection/).
"""
