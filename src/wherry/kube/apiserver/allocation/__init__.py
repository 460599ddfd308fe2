"""Addresses and node ports of Services: who has which, and which are free.

``pools`` knows what is taken and chooses, ``services`` fills it into a Service that is written,
``addresses`` makes the IPAddress that goes with each address, in the same transaction, and
``repair`` mends what does not fit together. The registry asks when it writes a Service.
"""
