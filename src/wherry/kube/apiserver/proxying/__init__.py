"""Requests that others answer: kubelets, pods, services, aggregated API servers.

``raw`` speaks HTTP/1.1 by hand, for connections that will be taken over (exec, WebSockets);
``carrier`` hands a whole request on and its answer back, streaming both ways; ``places`` finds out
where a node, pod or service is reached; ``rewriting`` mends the links in what comes back;
``subresource`` is ``…/proxy`` below nodes, pods and services.
"""
