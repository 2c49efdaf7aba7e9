"""What the OpenAPI 3.1 documents of the fronts are put together from."""

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

Schema: TypeAlias = dict[str, Any]

FLAG: Final[Schema] = {"type": "boolean"}
ANY_OBJECT: Final[Schema] = {"type": "object"}


def object_of(required: list[str], **properties: Schema) -> Schema:
    """An object of ``properties``, those ``required`` among them."""
    return {"type": "object", "required": required, "properties": properties}


def ref(name: str) -> Schema:
    """The schema ``name`` of the document's components."""
    return {"$ref": f"#/components/schemas/{name}"}


def array_of(items: Schema) -> Schema:
    """A list of ``items``."""
    return {"type": "array", "items": items}


def text(description: str = "") -> Schema:
    """Any text."""
    return {"type": "string", "description": description} if description else {"type": "string"}


def integer(description: str = "", minimum: int | None = 0) -> Schema:
    """A whole number."""
    schema: Schema = {"type": "integer"}
    if minimum is not None:
        schema["minimum"] = minimum
    if description:
        schema["description"] = description
    return schema


def content(schema: Schema) -> Schema:
    """A body of JSON."""
    return {"application/json": {"schema": schema}}


def error_schema() -> Schema:
    """The body of every error."""
    return object_of(["error"], error=text("what was expected, what was given, how to mend it"))


def operation_of(
    tag: str,
    summary: str,
    answer: Schema,
    errors: tuple[int, ...] = (),
    body: Schema | None = None,
) -> Schema:
    """One method of a path: its ``answer`` with status 200, and the statuses of its errors."""
    operation: Schema = {
        "tags": [tag],
        "summary": summary,
        "responses": {"200": {"description": "done", "content": content(answer)}},
    }
    for status in errors:
        operation["responses"][str(status)] = {"$ref": f"#/components/responses/{status}"}
    if body is not None:
        operation["requestBody"] = {"content": content(body)}
    return operation


def document_of(
    version: str,
    title: str,
    summary: str,
    paths: dict[str, Schema],
    schemas: Mapping[str, Schema],
    errors: Mapping[int, str],
) -> dict[str, Any]:
    """The document of ``paths``, for the server's ``version``.

    ``schemas`` has one named ``Error``; ``errors`` says what each status of an error means.
    """
    for path, item in paths.items():
        names = [part.split("}")[0] for part in path.split("{")[1:]]
        if names:
            item["parameters"] = [
                {"name": name, "in": "path", "required": True, "schema": text()} for name in names
            ]
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version, "summary": summary},
        "paths": paths,
        "components": {
            "schemas": dict(schemas),
            "responses": {
                str(status): {"description": meaning, "content": content(ref("Error"))}
                for status, meaning in errors.items()
            },
        },
    }
