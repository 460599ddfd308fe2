"""Docker's Engine HTTP API, versions 1.24 to 1.50, one module a resource.

Each module has ``ROUTES``, a tuple of ``routing.Route``; ``server.MODULES`` lists the modules.
Handlers read parameters with ``parameters``, call the engine and shape the answer; an EngineError
that they raise becomes ``{"message": …}`` with its status. The reference:
https://docs.docker.com/reference/api/engine/version/v1.50/
"""
