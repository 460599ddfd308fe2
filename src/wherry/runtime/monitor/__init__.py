"""The monitor: a small process of an instance that stays with its containers when the daemon goes.

It is the parent of the containers' first processes: it starts the OCI runtime's ``create``, holds
the other ends of the containers' streams open, and writes down how each container ended before it
tells anyone. It moves no data: the daemon asks it for the descriptors and reads and writes the
streams itself.

``process`` is that process, started by path with nothing but the standard library, so that it is
small and quick; it imports neither asyncio nor anything of ours but ``protocol``, ``exits``,
``creation`` and ``runtime.console``. ``client`` is the daemon's side.
"""
