"""Dynamic admission: what webhooks say of a write.

``plugin`` is the step of the chain. ``index`` keeps the configurations that are stored ready for
use, ``review`` words the question and reads the answer (AdmissionReview), ``asking`` puts it to one
webhook, ``mutating`` to one after the other, each seeing what those before it changed,
``validating`` to all at once.
https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/
"""
