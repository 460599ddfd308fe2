from apiserver_harness import api, server, store

__all__ = ["api", "server", "store"]
