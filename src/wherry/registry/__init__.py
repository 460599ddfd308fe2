"""A registry: images (and whatever else OCI descriptors name) kept for others to pull.

``server`` speaks the OCI distribution specification 1.1 and Docker's search; ``storage`` keeps the
bytes; ``access`` says who may do what; ``collector`` frees what nobody names any more.
https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md
"""
