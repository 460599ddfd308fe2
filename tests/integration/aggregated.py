"""A small aggregated API server: flunders.wardle.example.com/v1, in memory, behind TLS."""

from __future__ import annotations

import asyncio
import copy
import json
import ssl
import uuid
from typing import Any

from aiohttp import web

GROUP, VERSION = "wardle.example.com", "v1"
BASE = f"/apis/{GROUP}/{VERSION}"
KIND = "Flunder"
VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]

_SCHEMA = "com.example.wardle.v1.Flunder"


class Flunders:
    """The server. ``seen`` is what was asked: method, path, and who we were told it is."""

    def __init__(self, *, modern: bool = True) -> None:
        self.modern = modern
        self.healthy = True
        self.seen: list[tuple[str, str, dict[str, list[str]]]] = []
        self.peers: set[str] = set()
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.revision = 1
        self.history: list[dict[str, Any]] = []
        self.watchers: list[asyncio.Queue[dict[str, Any]]] = []
        self.app = web.Application(client_max_size=1 << 30)
        add = self.app.router.add_route
        add("GET", "/apis", self.groups)
        add("GET", BASE, self.resources)
        add("GET", "/openapi/v2", self.openapi)
        add("GET", f"{BASE}/flunders", self.list)
        add("GET", f"{BASE}/namespaces/{{ns}}/flunders", self.list)
        add("POST", f"{BASE}/namespaces/{{ns}}/flunders", self.create)
        add("DELETE", f"{BASE}/namespaces/{{ns}}/flunders", self.clear)
        add("GET", f"{BASE}/namespaces/{{ns}}/flunders/{{name}}", self.get)
        add("PATCH", f"{BASE}/namespaces/{{ns}}/flunders/{{name}}", self.patch)
        add("DELETE", f"{BASE}/namespaces/{{ns}}/flunders/{{name}}", self.delete)
        add("POST", f"{BASE}/namespaces/{{ns}}/flunders/{{name}}/sum", self.sum)
        add("GET", f"{BASE}/namespaces/{{ns}}/flunders/{{name}}/talk", self.talk)
        self.app.middlewares.append(self._note)

    def context(self, authority: Any, pair: tuple[Any, Any]) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*map(str, pair))
        context.load_verify_locations(str(authority))
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    @web.middleware
    async def _note(self, request: web.Request, handler: Any) -> web.StreamResponse:
        said: dict[str, list[str]] = {}
        for name, value in request.headers.items():
            if name.lower().startswith("x-remote-"):
                said.setdefault(name.lower(), []).append(value)
        assert request.transport is not None
        subject = dict(p for (p,) in request.transport.get_extra_info("peercert")["subject"])
        self.peers.add(subject["commonName"])
        self.seen.append((request.method, request.path, said))
        if not self.healthy:
            return web.Response(status=500)
        answer: web.StreamResponse = await handler(request)
        return answer

    def asked(self, method: str, path: str) -> dict[str, list[str]]:
        """In whose name the last such request was made."""
        return next(said for m, p, said in reversed(self.seen) if (m, p) == (method, path))

    # --- about itself ----------------------------------------------------------------------------

    async def groups(self, request: web.Request) -> web.Response:
        kind = {"group": GROUP, "version": VERSION, "kind": KIND}
        if self.modern and "APIGroupDiscoveryList" in request.headers.get("Accept", ""):
            resource = {
                "resource": "flunders",
                "responseKind": kind,
                "scope": "Namespaced",
                "singularResource": "flunder",
                "verbs": VERBS,
                "shortNames": ["fl"],
            }
            version = {"version": VERSION, "resources": [resource], "freshness": "Current"}
            return web.Response(
                body=json.dumps(
                    {
                        "kind": "APIGroupDiscoveryList",
                        "apiVersion": "apidiscovery.k8s.io/v2",
                        "metadata": {},
                        "items": [{"metadata": {"name": GROUP}, "versions": [version]}],
                    }
                ).encode(),
                headers={
                    "Content-Type": "application/json;g=apidiscovery.k8s.io;v=v2;"
                    "as=APIGroupDiscoveryList"
                },
            )
        return web.json_response({"kind": "APIGroupList", "apiVersion": "v1", "groups": []})

    async def resources(self, request: web.Request) -> web.Response:
        entry = {
            "name": "flunders",
            "singularName": "flunder",
            "namespaced": True,
            "kind": KIND,
            "verbs": VERBS,
            "shortNames": ["fl"],
        }
        return web.json_response(
            {
                "kind": "APIResourceList",
                "apiVersion": "v1",
                "groupVersion": f"{GROUP}/{VERSION}",
                "resources": [entry],
            }
        )

    async def openapi(self, request: web.Request) -> web.Response:
        kind = {"group": GROUP, "version": VERSION, "kind": KIND}
        path = f"{BASE}/namespaces/{{namespace}}/flunders/{{name}}"
        reference = {"$ref": f"#/definitions/{_SCHEMA}"}
        get = {
            "operationId": "readFlunder",
            "produces": ["application/json"],
            "responses": {"200": {"description": "OK", "schema": reference}},
            "x-kubernetes-action": "get",
            "x-kubernetes-group-version-kind": kind,
        }
        parameters = [
            {"name": n, "in": "path", "required": True, "type": "string"}
            for n in ("name", "namespace")
        ]
        schema = {
            "description": "Flunder is a thing of the test.",
            "type": "object",
            "properties": {
                "apiVersion": {"type": "string"},
                "kind": {"type": "string"},
                "metadata": {"$ref": "#/definitions/io.k8s.meta.Other"},
                "spec": {
                    "type": "object",
                    "properties": {"size": {"type": "integer", "description": "How large."}},
                },
            },
            "x-kubernetes-group-version-kind": [kind],
        }
        return web.json_response(
            {
                "swagger": "2.0",
                "info": {"title": "flunders", "version": "1"},
                "paths": {path: {"get": get, "parameters": parameters}, "/other": {"get": get}},
                "definitions": {
                    _SCHEMA: schema,
                    "io.k8s.meta.Other": {"type": "object"},
                    "unused": {"type": "object"},
                },
            }
        )

    # --- objects ---------------------------------------------------------------------------------

    def _tell(self, type: str, o: dict[str, Any]) -> None:
        event = {"type": type, "object": copy.deepcopy(o)}
        self.history.append(event)
        for watcher in self.watchers:
            watcher.put_nowait(event)

    def _count(self, o: dict[str, Any]) -> None:
        self.revision += 1
        o["metadata"]["resourceVersion"] = str(self.revision)

    async def list(self, request: web.Request) -> web.StreamResponse:
        namespace = request.match_info.get("ns")
        found = [o for (ns, _), o in self.objects.items() if namespace in (None, ns)]
        if request.query.get("watch") in ("true", "1"):
            return await self._watch(request, found, namespace)
        return web.json_response(
            {
                "kind": "FlunderList",
                "apiVersion": f"{GROUP}/{VERSION}",
                "metadata": {"resourceVersion": str(self.revision)},
                "items": found,
            }
        )

    async def _watch(
        self, request: web.Request, found: Any, namespace: str | None
    ) -> web.StreamResponse:
        response = web.StreamResponse()
        response.headers["Content-Type"] = "application/json"
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        after = int(request.query.get("resourceVersion") or 0)
        for event in self.history if after else ():  # what happened since the client's list
            if int(event["object"]["metadata"]["resourceVersion"]) > after:
                queue.put_nowait(event)
        self.watchers.append(queue)
        await response.prepare(request)
        if not after:
            for o in found:
                await response.write(json.dumps({"type": "ADDED", "object": o}).encode() + b"\n")
        try:
            while True:
                event = await queue.get()
                if namespace in (None, event["object"]["metadata"]["namespace"]):
                    await response.write(json.dumps(event).encode() + b"\n")
        finally:
            self.watchers.remove(queue)

    async def create(self, request: web.Request) -> web.Response:
        o = await request.json()
        namespace = request.match_info["ns"]
        o["metadata"] |= {"namespace": namespace, "uid": str(uuid.uuid4())}
        self._count(o)
        self.objects[namespace, o["metadata"]["name"]] = o
        self._tell("ADDED", o)
        return web.json_response(o, status=201)

    def _found(self, request: web.Request) -> dict[str, Any]:
        key = request.match_info["ns"], request.match_info["name"]
        if key not in self.objects:
            status = {
                "kind": "Status",
                "apiVersion": "v1",
                "status": "Failure",
                "reason": "NotFound",
                "code": 404,
                "message": f'flunders.{GROUP} "{key[1]}" not found',
            }
            raise web.HTTPNotFound(text=json.dumps(status), content_type="application/json")
        return self.objects[key]

    async def get(self, request: web.Request) -> web.Response:
        return web.json_response(self._found(request))

    async def patch(self, request: web.Request) -> web.Response:
        o = self._found(request)
        patch = await request.json()
        for part, value in patch.items():
            if isinstance(value, dict):
                o[part] = {**o.get(part, {}), **value}
        self._count(o)
        self._tell("MODIFIED", o)
        return web.json_response(o)

    def _remove(self, key: tuple[str, str]) -> None:
        o = self.objects.pop(key)
        self._count(o)
        self._tell("DELETED", o)

    async def delete(self, request: web.Request) -> web.Response:
        o = self._found(request)
        self._remove((o["metadata"]["namespace"], o["metadata"]["name"]))
        return web.json_response({"kind": "Status", "apiVersion": "v1", "status": "Success"})

    async def clear(self, request: web.Request) -> web.Response:
        for key in [k for k in self.objects if k[0] == request.match_info["ns"]]:
            self._remove(key)
        return web.json_response({"kind": "Status", "apiVersion": "v1", "status": "Success"})

    async def sum(self, request: web.Request) -> web.Response:
        size = 0
        async for chunk in request.content.iter_any():
            size += len(chunk)
        return web.Response(body=b"z" * size)

    async def talk(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(f"heard {message.data}")
        return socket
