"""The name server that containers on user-defined networks find at 127.0.0.11.

``zone`` knows names and addresses, ``messages`` turns questions into answers, ``forward`` asks
other name servers, ``server`` has the sockets inside one container's network namespace, and
``resolvers`` has all of them. The first two are plain functions of what they are given.
"""
