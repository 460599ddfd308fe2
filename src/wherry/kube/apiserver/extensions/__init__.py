"""What the API is extended by at run time.

``definitions`` has custom resources served, as their definitions say, and cleans up behind those
that go; ``conversion`` turns objects from one version into another, and ``views`` shows each
version of a custom resource as if all objects were of it; ``callout`` asks webhooks, at the
``places`` of their Services;
``aggregation`` passes requests on to other API servers. `APIServer` is the caller.
"""
