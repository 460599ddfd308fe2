"""What the API is extended by at run time.

``definitions`` has custom resources served, as their definitions say, and cleans up behind those
that go; ``conversion`` turns objects from one version of a custom resource into another;
``aggregation`` passes requests on to other API servers. `APIServer` is the caller.
"""
