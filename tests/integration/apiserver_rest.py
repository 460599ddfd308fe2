"""Plain HTTP to an API server of a test's own: what the clients hide can be seen."""

from __future__ import annotations

import http.client
import json
import ssl
from dataclasses import dataclass
from typing import Any

from apiserver_process import Server


@dataclass(frozen=True)
class Reply:
    """An answer; ``warnings`` are the texts of its Warning headers."""

    code: int
    body: Any
    warnings: list[str]

    @property
    def message(self) -> str:
        return str(self.body.get("message", ""))


class Rest:
    """Requests as the administrator, on a connection for each."""

    def __init__(self, server: Server) -> None:
        self._port = server.port
        self._context = ssl.create_default_context(cafile=str(server.authority.certificate))
        self._context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        self._context.load_cert_chain(*map(str, server.admin))

    def __call__(
        self, method: str, path: str, body: object = None, content_type: str = "application/json"
    ) -> Reply:
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self._port, context=self._context, timeout=60
        )
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"Content-Type": content_type})
            response = connection.getresponse()
            warnings = [
                value.removeprefix("299 - ").strip('"').replace('\\"', '"')
                for name, value in response.getheaders()
                if name.lower() == "warning"
            ]
            return Reply(response.status, json.loads(response.read()), warnings)
        finally:
            connection.close()

    def ok(self, method: str, path: str, body: object = None, **more: str) -> Any:
        """The body of an answer that must be one of success."""
        reply = self(method, path, body, **more)
        assert reply.code < 300, reply
        return reply.body
