"""The pods of other nodes: each node leads their ranges to the nodes that have them.

``plan`` decides from the Nodes and from how this machine reaches them; ``router`` watches and acts.
On a common link a route to the node does (host-gw). Behind a router, which knows nothing of pods,
their packets travel in datagrams to the node (VXLAN).
"""
