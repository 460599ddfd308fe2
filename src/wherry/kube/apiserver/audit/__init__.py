"""Audit: who asked for what, when, and what became of it, as lines of JSON.

``policy`` says how much of which request is told, ``record`` follows one request and makes its
events, ``log`` writes them; ``config`` knows the options. Off unless a policy and a log are given;
then a request costs nothing for it.
https://kubernetes.io/docs/tasks/debug/debug-cluster/audit/
"""
