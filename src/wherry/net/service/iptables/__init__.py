"""Services as chains of iptables, those of upstream's kube-proxy: mode ``iptables``.

``chains`` says, as pure functions, which chains and rules a Service has. ``tables`` compares that
with what is there, and changes what differs. ``programs`` reads and writes: iptables-save and
iptables-restore.
"""
