"""The name server that containers on user-defined networks find at 127.0.0.11.

``zone`` knows names and addresses, ``answers`` finds there what is said to a question, ``forward``
asks other name servers, ``server`` has the sockets inside one container's network namespace, and
``resolvers`` has all of them. The first two are plain functions of what they are given; messages
are read and written by ``wire.dns``.
"""
