"""The only door to the cluster's objects: HTTP → authn → authz → admission → registry → store.

Read on in the order a request takes:

``http``, ``local``
    the two doors: TLS for everybody, memory for components in the same process;
``request``, ``negotiate``, ``options``, ``content``
    what is asked, in which form, with which parameters and body;
``authn``, ``authz``
    who asks, and may they;
``audit``
    what is written down of it, where a policy says so;
``fairness``
    who waits, and behind whom;
``admission``
    what the cluster adds or refuses (one table);
``registry``
    the verbs, generic for all kinds; ``services`` allocates addresses and ports, ``expiry`` ends
    old events;
``cache``, ``resource_cache``
    all objects in memory, and the events for those who watch;
``encryption``
    which values lie encrypted in the store;
``answers``, ``render``, ``exchange``
    what comes back: as values, as bytes, and on the wire;
``streams``, ``documents``
    what is not about objects: logs and shells in pods, discovery and health.

``server`` puts them together; only the launcher may import it.
"""
