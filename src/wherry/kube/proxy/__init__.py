"""The service proxy: what Services and EndpointSlices say becomes translation rules of this node.

``ports`` decides, as pure functions, what a Service is here and who answers; ``claims`` which of
several Services has an address and port that more than one asks for. ``proxy`` watches the cluster
and hands the changes to a mode (``modes``), which has them made true by ``net.service``: maps of
nftables, chains of iptables, or a balancer in this process. ``loopback`` serves node ports at ::1
besides, ``ranges`` has the machine's own connections to cluster IPs come as far as the rules.

``health`` answers load balancers, and says how the proxy is. ``config_file`` reads a
KubeProxyConfiguration, ``configuration`` makes a proxy from what is known of the node.
"""
