"""`/openapi.json`: the server as it is, not as FastAPI supposes: 400 for 422, streams, keys."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from m3router.router.serve.backends.backend import Backend
from m3router.router.serve.http.convert import model_names
from m3router.router.serve.http.schema import ChatRequest

CHAT = "/v1/chat/completions"
REF = "#/components/schemas/{model}"
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": REF.format(model="ChatRequest")}}},
    }
}
"""Of a route that reads a `ChatRequest` by itself."""


def describe(app: FastAPI, backend: Backend, *, keys: bool, open_paths: Collection[str]) -> None:
    """Let an application describe itself.

    Args:
        app: Whose routes.
        backend: Whose models can be asked.
        keys: Whether API keys are needed.
        open_paths: Those that need none.
    """
    early: list[dict[str, Any]] = []  # the description of before the models are known

    def openapi() -> dict[str, Any]:
        if early and not backend.ready():
            return early[0]
        if app.openapi_schema is None:
            schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
            schemas = schema["components"]["schemas"]
            request = ChatRequest.model_json_schema(ref_template=REF)
            schemas |= request.pop("$defs")
            schemas["ChatRequest"] = request
            if keys:
                schemes = {"bearer": {"type": "http", "scheme": "bearer"}}
                schema["components"]["securitySchemes"] = schemes
            for path, operations in schema["paths"].items():
                for operation in operations.values():
                    operation["responses"].pop("422", None)
                    if keys and path not in open_paths:
                        operation["security"] = [{"bearer": []}]
                        operation["responses"]["401"] = operation["responses"].get(
                            "429", {"description": "No valid key"}
                        )
            answered = schema["paths"][CHAT]["post"]["responses"]["200"]
            # Events, each with a chat.completion.chunk in its data.
            answered["content"]["text/event-stream"] = {"schema": {}}
            if backend.ready():
                names = list(model_names(backend.served()))
                request["properties"]["model"]["enum"] = names
                app.openapi_schema = schema
            else:
                early.append(schema)
            return schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
