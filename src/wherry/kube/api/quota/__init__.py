"""What objects are charged to ResourceQuotas: by admission when they are made, and in sum by the
controller that counts. Both ask the same functions, so that they agree.

https://kubernetes.io/docs/concepts/policy/resource-quotas/
"""
