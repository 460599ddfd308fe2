"""The revisioned key-value store beneath the API server, with etcd's semantics.

``types`` is what every store offers; ``sqlite`` is the embedded one, in a file that ``sqlite_file``
knows; ``etcd`` one that several API servers share. ``opening`` makes either from what ``--store``
says. One suite of tests holds both.
"""
