"""Wherry: Docker and Kubernetes in Python.

Read the rooms in the order in which data crosses them: ``cli`` parses a command, ``launcher`` puts
daemons together, ``kube`` is the cluster, ``engine`` the container engine beneath it, ``runtime``
and ``net`` are the only code that touches processes and the kernel's network, ``wire`` and ``host``
hold protocols and what every daemon needs from the operating system.
"""

__version__ = "0.1.0"
