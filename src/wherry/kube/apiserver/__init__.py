"""The only door to the cluster's objects: HTTP → authn → authz → admission → registry → store.

Read on in the order a request takes:

``http``, ``local``
    the two doors: TLS for everybody, memory for components in the same process;
``request``, ``negotiate``, ``options``, ``content``
    what is asked, in which form, with which parameters and body;
``authn``, ``authz``, ``policy``
    who asks, and may they;
``admission``
    what the cluster adds or refuses (one table);
``registry``
    the verbs, generic for all kinds; ``services`` allocates addresses and ports, ``expiry`` ends
    old events;
``cache``
    all objects in memory, and the events for those who watch;
``answers``, ``render``
    what comes back, as values and as bytes;
``streams``, ``documents``
    what is not about objects: logs and shells in pods, discovery and health.

``server`` puts them together; only the launcher may import it.
"""
