"""ReplicaSet and ReplicationController: so many pods of one template, no more and no fewer.

The two kinds differ in the form of their selector alone, so one controller serves both.
``plan`` decides, ``controller`` acts.
"""
