"""Measures what the documentation claims, beside a peer in the same run where one can be had.

``python -m benchmarks`` runs all, ``python -m benchmarks docker_run …`` some. Needs root.
"""
