"""NetworkPolicies: which connections of this node's pods are let through.

``policies`` reads what a NetworkPolicy says; ``model`` turns policies, pods and namespaces into
sets and chains, and knows with each change which of their elements are others than before, both
without I/O; ``enforcer`` watches the cluster, hands the result to ``net.policy_table``, and is
told of a pod's address before the pod's first container starts.
"""
