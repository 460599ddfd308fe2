"""Volumes: directories that outlive the containers that use them.

``volumes.Volumes`` is the one door, for the Engine API and for containers; ``volume`` says what a
volume is and what is kept of it on disk, ``local`` knows the options of the only driver there is,
``copy`` fills a fresh volume with what the image has in its place.
"""
