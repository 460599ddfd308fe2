"""Containers: from the request that creates one to its removal.

Read in this order: ``container`` (what a container is, and what of it is on disk), ``store`` (all
of them, by id and name), ``lifecycle`` (created → running → exited → removed, and what a restart of
the daemon finds). Around them, pure functions: ``options`` and ``rules`` judge the request,
``spec`` turns it into what the runtime wants, ``inspect`` into what clients read.
"""
