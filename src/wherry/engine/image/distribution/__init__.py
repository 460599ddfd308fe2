"""Images from and to registries: the client's side of the OCI distribution specification.

``endpoints`` says where a registry is found and whom to trust there; ``registry`` speaks with one,
authentication included; ``pull`` and ``push`` move images; ``search`` asks for names.
"""
