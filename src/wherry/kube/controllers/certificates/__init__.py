"""CertificateSigningRequests: what kubelets ask for is approved, what was approved is signed, what
is done with is removed (``controllers``).

``requests`` knows the rules of the signers, ``signing`` makes certificates.

https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/
"""
