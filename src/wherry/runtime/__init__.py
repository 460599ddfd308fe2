"""Contained processes: OCI bundles, an OCI runtime, its monitor, cgroups, mounts, streams.

The only code that starts a contained process. ``types`` holds what goes in and out; the engine uses
``service.Runtime``, which survives restarts of the daemon because a small process beside it, the
``monitor``, holds all containers.
"""
