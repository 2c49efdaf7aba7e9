"""The page at ``/docs``: the OpenAPI document for people, with nothing to download."""

from html import escape
from typing import Any, Final

_STYLE: Final = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --accent: #2563eb; }
body { font: 15px/1.55 system-ui, sans-serif; margin: 0 auto; max-width: 62rem;
  padding: 2rem 1.25rem; }
h1 { font-size: 1.7rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
p.lead { margin: .2rem 0 1rem; opacity: .75; }
nav a { margin-right: .9rem; } a { color: var(--accent); text-decoration: none; }
details { border: 1px solid var(--line); border-radius: 8px; margin: .4rem 0; overflow: hidden; }
summary { cursor: pointer; display: flex; gap: .8rem; align-items: baseline; padding: .5rem .8rem; }
summary:hover, details[open] summary { background: var(--soft); }
summary code { font-weight: 600; overflow-wrap: anywhere; }
summary span:last-child { margin-left: auto; opacity: .7; text-align: right; }
.method { border-radius: 5px; color: #fff; flex: none; font-size: .72rem; font-weight: 700;
  padding: .1rem 0; text-align: center; width: 3.6rem; }
.get { background: #15803d; } .post { background: #1d4ed8; }
.put { background: #b45309; } .delete { background: #b91c1c; }
.inside { padding: .3rem .9rem .9rem; }
table { border-collapse: collapse; width: 100%; }
td, th { border-top: 1px solid var(--line); padding: .3rem .5rem; text-align: left;
  vertical-align: top; } th { font-weight: 600; width: 11rem; }
code { font: .88em/1.5 ui-monospace, monospace; }
"""


def render_docs_page(document: dict[str, Any]) -> str:
    """Return the HTML page that shows an OpenAPI ``document`` of ``openapi.py``."""
    by_tag: dict[str, list[str]] = {}
    for path, item in document["paths"].items():
        for method in ("get", "put", "post", "delete"):
            if method in item:
                operation = item[method]
                by_tag.setdefault(operation["tags"][0], []).append(
                    _operation(path, method, operation, document)
                )
    info = document["info"]
    links = "".join(f'<a href="#{_anchor(tag)}">{escape(tag)}</a>' for tag in by_tag)
    sections = "".join(
        f'<h2 id="{_anchor(tag)}">{escape(tag)}</h2>{"".join(operations)}'
        for tag, operations in by_tag.items()
    )
    schemas = "".join(
        f'<details id="schema-{name}"><summary><code>{name}</code></summary>'
        f'<div class="inside">{_schema(schema)}</div></details>'
        for name, schema in document["components"]["schemas"].items()
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(info['title'])} API</title><style>{_STYLE}</style></head><body>"
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>"
        f'<p class="lead">{escape(info["summary"])}. '
        'The same as <a href="/openapi.json">OpenAPI</a>.</p>'
        f'<nav>{links}<a href="#schemas">Schemas</a></nav>{sections}'
        f'<h2 id="schemas">Schemas</h2>{schemas}</body></html>'
    )


def _anchor(tag: str) -> str:
    return tag.lower().replace(" ", "-")


def _operation(path: str, method: str, operation: dict[str, Any], document: dict[str, Any]) -> str:
    rows = []
    if "description" in operation:
        rows.append(("About", escape(operation["description"])))
    rows += [
        (
            f"{parameter['in'].capitalize()} {escape(parameter['name'])}",
            escape(parameter["schema"]["description"]),
        )
        for parameter in operation.get("parameters", ())
    ]
    if "requestBody" in operation:
        rows.append(("Request", _contents(operation["requestBody"]["content"])))
    for status, response in operation["responses"].items():
        if "$ref" in response:
            response = document["components"]["responses"][response["$ref"].rsplit("/", 1)[1]]
            rows.append((status, escape(response["description"])))
        else:
            rows.append((status, _contents(response["content"])))
    table = "".join(f"<tr><th>{name}</th><td>{text}</td></tr>" for name, text in rows)
    return (
        f'<details><summary><span class="method {method}">{method.upper()}</span>'
        f"<code>{escape(path)}</code><span>{escape(operation['summary'])}</span></summary>"
        f'<div class="inside"><table>{table}</table></div></details>'
    )


def _contents(content: dict[str, Any]) -> str:
    return "<br>".join(
        f"<code>{escape(kind)}</code> {_schema(item['schema'])}" for kind, item in content.items()
    )


def _schema(schema: dict[str, Any]) -> str:
    """A schema as HTML: a link, a table of properties, or a few words."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return f'<a href="#schema-{name}">{name}</a>'
    if "properties" in schema:
        required = schema.get("required", ())
        rows = "".join(
            f"<tr><th><code>{escape(name)}</code>{'' if name in required else ' (optional)'}</th>"
            f"<td>{_schema(item)}</td></tr>"
            for name, item in schema["properties"].items()
        )
        return f"<table>{rows}</table>"
    if schema.get("type") == "array":
        words = f"list of {_schema(schema['items'])}"
    elif "enum" in schema:
        words = "one of " + ", ".join(map(escape, schema["enum"]))
    else:
        kind = schema.get("type", "any value")
        words = escape(" or ".join(kind) if isinstance(kind, list) else kind)
    if "description" in schema:
        words += f": {escape(schema['description'])}"
    return words
