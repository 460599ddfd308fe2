"""What happens to objects: one generic registry for all kinds.

``records`` reads and writes objects of one resource; ``reading``, ``watching``, ``creating``,
``updating``, ``patching`` and ``deleting`` are the verbs; ``subresources`` holds what is reached
below an object. `dispatch` is the table from a request to one of them. Everything special about a
kind is asked of `wherry.kube.api.kinds`.
"""
