"""The orchestrator: what was declared becomes what is.

``api`` says what the kinds are, ``store`` keeps them, ``apiserver`` is the only door to them, and
every other component reaches the cluster through ``client`` alone.
"""
