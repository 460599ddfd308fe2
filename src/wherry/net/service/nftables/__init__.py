"""Services as data in nftables: mode ``nftables``.

A cluster's Services are elements of a few maps in tables of our own, one a family; the ``rules``
around them never change. What a packet for a Service's address meets:

1. ``services`` says by (address, protocol, port) of which class it is, ``node-services`` does so by
   (protocol, port) for the machine's addresses; ``classes`` leads to the chain for Services with
   that many endpoints. (Were the chains in ``services`` itself, the kernel would look through all
   of it at each change, for loops.)
   Where clients of inside are treated otherwise (they need not heed an external traffic policy
   ``Local``), maps of their own come first.
2. That chain draws an index, each in turn, and takes the endpoint from ``endpoints`` by
   (address, protocol, port, index).
3. A Service with client affinity goes through ``affinity`` first, which remembers for a time the
   number of the endpoint a client was given. The number, not the address: an endpoint that leaves
   takes its number out of ``numbers``, and its clients are given another.
4. What has no endpoint is in ``refused``, or in ``dropped`` where another node may answer. What is
   still addressed to the range of cluster IPs behind that is refused, too.

So a change costs a few elements in one transaction, however many Services there are. A chain exists
per number of endpoints, times a few: the counter that gives the turns belongs to the chain, and two
Services that shared it could fall into step, each always getting the same endpoint.

``maps`` says, as a pure function of Services, which elements there are, and how they change.
``tables`` has them so in the kernel. What a former process left is taken over where the rules are
the same: its elements are read, and only what is wrong is changed, so that clients keep the
endpoints they were given.
"""
