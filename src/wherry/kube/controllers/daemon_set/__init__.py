"""DaemonSets: a pod on each node that qualifies.

``placement`` says which nodes those are and what a pod bound for one looks like, ``plan`` decides
the next step, ``controller`` carries it out.
"""
