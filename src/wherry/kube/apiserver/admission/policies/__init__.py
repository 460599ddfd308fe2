"""Dynamic admission without webhooks: ValidatingAdmissionPolicy and MutatingAdmissionPolicy.

``plugin`` is the step of the chain. ``definition`` makes a policy of what is stored, ``index``
keeps those that are bound ready for use, ``params`` finds what a binding names as parameters,
``evaluation`` runs the expressions; ``validating`` judges by them and ``mutating`` changes.
``checking`` writes into a policy's status what its expressions get wrong.
https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/
https://kubernetes.io/docs/reference/access-authn-authz/mutating-admission-policy/
"""
