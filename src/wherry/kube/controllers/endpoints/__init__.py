"""Endpoints and EndpointSlices: which addresses stand behind a Service.

``backends`` says what a pod contributes, ``slices`` and ``legacy`` arrange it (pure functions), and
``controllers`` write: the slices, which proxies read, and the Endpoints object of the Service's
name, which old clients read.
"""
