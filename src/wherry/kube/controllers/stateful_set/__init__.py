"""StatefulSets: pods with a name, an order and a place for their data.

``identity`` is what a pod of a set is called and what belongs to it, ``plan`` decides the next
step, ``claims`` keeps the volumes' claims, ``controller`` carries it out.
"""
