"""nftables, in two languages.

- ``nft``: nft's own text, by libnftables. For tables and rules, and for whatever is rare: it is
  readable, and nft checks it.
- ``elements``: the kernel's messages, for elements of sets and maps by the ten thousand. A rule
  that must come with an element, in the same transaction, is made of ``expressions``.

Nothing here knows what the rules are for: that is in ``net.firewall``, ``net.policy_table`` and
``net.service``.
"""
