"""The kernel's memory of connections (nfnetlink_conntrack).

``flows`` reads it, and has it forget; ``open_connections`` tells when those to an address have
ended; ``tcp_window`` is how strictly it is kept.
"""
