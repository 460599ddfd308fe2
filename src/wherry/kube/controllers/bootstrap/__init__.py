"""Bootstrap tokens: what is said to newcomers is signed with each (``signer``), and those that have
ended are removed (``cleaner``).

https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/
"""
