"""PersistentVolumes and claims on them.

``binding`` decides what becomes of a claim or a volume, ``binder`` carries it out; ``local_path``
makes volumes in directories of nodes, ``scrubbing`` runs the pods that empty or remove them.
"""
