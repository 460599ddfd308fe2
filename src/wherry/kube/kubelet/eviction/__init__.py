"""When the node runs short, pods are put off it before the kernel does worse.

``thresholds`` says when it is short, ``ranking`` who goes first and what it is told, ``signals``
reads how much there is, ``storage`` how much each pod has written, ``manager`` acts.
https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/
"""
