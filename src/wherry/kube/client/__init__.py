"""How a component reaches the cluster: requests, watches, informers, queues, events, elections.

Five nouns are enough to read any component. A ``Client`` makes typed requests over a ``Transport``
(HTTPS, or the API server's own memory). An ``Informer`` holds a current copy of one resource and
tells of its changes. A ``WorkQueue`` gathers the keys those changes concern; workers take them one
at a time. An ``EventRecorder`` tells the user, a ``LeaderElector`` decides which replica acts.

Everything here runs on one event loop and belongs to it; nothing is safe to call from a thread.
"""
