"""The OpenAPI document: FastAPI's, with what the middlewares and the error handlers answer added to each operation."""

from typing import Any

from fastapi import FastAPI

from functions.errors import MEDIA_TYPE

PROBLEM = {"$ref": "#/components/schemas/Problem"}
OF_FASTAPI = {"$ref": "#/components/schemas/HTTPValidationError"}
STARTS = (("/chat/stream", "202"), ("/chat", "200"), ("/chat", "202"))
FROM_START = ("session_id", "turn_id")
ALWAYS = {
    "401": "a token that is not valid here, or none where one is needed",
    "422": "what was sent is not right; the detail names the field",
    "429": "too many; Retry-After says when to come back",
    "500": "something went wrong here",
    "503": "not possible at the moment; Retry-After says when to come back",
}
CHANGING = {"403": "a page of another site"}
WITH_BODY = {"408": "the body did not come in time", "413": "the body is too large", "415": "the body is no JSON"}
UNGUARDED = ("/healthz", "/readyz", "/metrics")


def install(app: FastAPI) -> None:
    made = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = made()
            for path, operations in document["paths"].items():
                for method, operation in operations.items():
                    _complete(path, method, operation)
            _link(document)
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]


def _complete(path: str, method: str, operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    if path not in UNGUARDED:
        for status, description in _refusals(method).items():
            responses.setdefault(status, {"description": description})
    for status, response in responses.items():
        schema = response.get("content", {}).get("application/json", {}).get("schema")
        if schema in (PROBLEM, OF_FASTAPI) or (status in _refusals(method) and "content" not in response):
            response["content"] = {MEDIA_TYPE: {"schema": PROBLEM}}


def _link(document: dict[str, Any]) -> None:
    """What a start answers is what the operations on its session ask for."""
    links = {}
    for path, operations in document["paths"].items():
        names = [name for name in FROM_START if f"{{{name}}}" in path]
        for operation in operations.values() if names else ():
            parameters = {name: f"$response.body#/{name}" for name in names}
            links[operation["operationId"]] = {"operationId": operation["operationId"], "parameters": parameters}
    for path, status in STARTS:
        document["paths"][path]["post"]["responses"][status]["links"] = links


def _refusals(method: str) -> dict[str, str]:
    changing = method not in ("get", "head")
    with_body = method in ("post", "put", "patch")
    return {**ALWAYS, **(CHANGING if changing else {}), **(WITH_BODY if with_body else {})}
