"""Contained processes: OCI bundles, an OCI runtime, its monitor, cgroups, mounts.

The only code that starts a contained process. ``types`` holds what goes in and out; the engine uses
``service.Runtime``, which survives restarts of the daemon because every container is held by a
monitor (conmon) of its own.
"""
