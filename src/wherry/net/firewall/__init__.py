"""What passes between containers, this machine and the outside, and ports published to it.

``rules`` is the text: which tables there are, and which elements a network or a port has in them,
as pure functions. ``firewall`` applies it, and keeps the ports from other programs.
"""
