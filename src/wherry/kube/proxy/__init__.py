"""The service proxy: what Services and EndpointSlices say becomes translation rules of this node.

``frontends`` decides, as a pure function, what answers at which address; ``proxy`` watches the
cluster and hands the result to ``net.service_map``, which changes the kernel's table.
"""
