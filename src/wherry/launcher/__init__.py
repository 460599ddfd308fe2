"""Puts daemons together: what an instance is, its keys, its two processes, starting and stopping.

The only code besides the tests that knows all components at once.
"""
