"""The revisioned key-value store beneath the API server, with etcd's semantics.

``types`` is what every store offers; ``sqlite`` is the embedded one. One suite of tests holds all.
"""
