"""NetworkPolicies: which connections of this node's pods are let through.

Without I/O: ``policies`` reads what a NetworkPolicy says; ``groups`` knows which pods its selectors
mean; ``elements`` counts what sets hold; ``model`` makes of these the rules for this node, and
knows with each change which of them are others than before.

``enforcer`` watches the cluster, hands the rules to ``net.policy_table``, and is told of a pod's
address before the pod's first container starts.
"""
