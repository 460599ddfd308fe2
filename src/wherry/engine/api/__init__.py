"""Docker's Engine HTTP API, versions 1.24 to 1.50, one module a resource."""
