"""Live streams into containers: exec, attach, port-forward, over WebSocket and SPDY/3.1.

``channels`` says what a remote command needs of a connection; ``websocket`` and ``spdy`` offer it.
``command`` couples a container's process to it, ``port_forward`` sockets in a pod. The protocols
themselves are in ``wherry.wire``.
"""
