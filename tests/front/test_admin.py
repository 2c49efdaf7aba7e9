"""The admin port: each call reaches the control plane as it was meant, and nothing else does."""

import math
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from gateway.errors import Conflict, LoadError, ShuttingDown, StartupError
from gateway.front.admin import AdminEndpoints
from gateway.front.admin_alerts import AlertEndpoints
from gateway.front.admin_drift import DriftEndpoints
from gateway.front.admin_live import MAX_LABELS_BYTES, WatchEndpoints
from gateway.front.admin_openapi import admin_document
from gateway.front.admin_request import MAX_BODY_BYTES
from gateway.stream.live import LiveStream
from gateway.stream.stream import PredictionStream
from tests.front.fake_admin import (
    ENTRIES,
    OUTCOMES,
    REPORT,
    STATUS,
    STREAM,
    VERDICT,
    FakeAdmin,
    FakeTruth,
)
from tests.front.running_admin import RunningAdmin
from tests.front.running_front import Answer, Wire
from tests.front.test_http_app import references

MODEL = "/admin/models/digits"


@pytest.fixture(scope="module")
def shared() -> Iterator[RunningAdmin]:
    with RunningAdmin(allowed_hosts=["Gateway.example."]) as running:
        yield running


@pytest.fixture
def running(shared: RunningAdmin) -> RunningAdmin:
    shared.admin.__init__()  # type: ignore[misc]
    return shared


@pytest.fixture
def admin(running: RunningAdmin) -> FakeAdmin:
    return running.admin


@pytest.fixture
def client(running: RunningAdmin) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=running.url, headers={"X-Actor": "ada"}) as made:
        yield made


# What is changed

WHO = {"by": "ada", "reason": "why"}
PLAN = {"version": "2", "steps": [{"percent": 5}], "gates": {"alpha": 0.01}}


@pytest.mark.parametrize(
    ("method", "path", "body", "name", "arguments"),
    [
        ("POST", "/promote", {"version": "2"}, "promote", ("2",)),
        ("POST", "/promote", {"version": 2}, "promote", ("2",)),
        ("POST", "/rollback", {}, "rollback", ()),
        ("POST", "/follow-latest", {}, "follow_latest", ()),
        ("PUT", "/canary", PLAN, "start_canary", (PLAN,)),
        ("POST", "/canary/pause", {}, "pause_canary", ()),
        ("POST", "/canary/resume", {}, "resume_canary", ()),
        ("DELETE", "/canary", None, "abort_canary", ()),
        ("PUT", "/shadow", {"version": "3"}, "start_shadow", ({"version": "3"},)),
        ("DELETE", "/shadow", None, "stop_shadow", ()),
        ("PUT", "/labels/champion", {"version": "2"}, "set_label", ("champion", "2")),
        ("DELETE", "/labels/champion", None, "remove_label", ("champion",)),
    ],
)
def test_a_change_is_passed_on_with_who_and_why(
    client: httpx.Client,
    admin: FakeAdmin,
    method: str,
    path: str,
    body: dict[str, Any] | None,
    name: str,
    arguments: tuple[Any, ...],
) -> None:
    for reason in ("why", ""):
        if body is None:
            answer = client.delete(MODEL + path, params={"reason": reason} if reason else {})
        else:
            why = {"reason": reason} if reason else {}
            answer = client.request(method, MODEL + path, json={**body, **why})
        assert (answer.status_code, answer.json()) == (200, STATUS)
        assert admin.calls.pop() == (name, ("digits", *arguments), {"by": "ada", "reason": reason})


def test_who_asks_is_the_address_where_no_actor_is_named(running: RunningAdmin) -> None:
    httpx.post(f"{running.url}{MODEL}/rollback", json={})
    assert running.admin.calls[-1][2]["by"] == "http:127.0.0.1"


def test_an_actor_may_have_any_name_in_utf_8(client: httpx.Client, admin: FakeAdmin) -> None:
    assert client.post(f"{MODEL}/rollback", json={}, headers={"X-Actor": "Zoë".encode()}).is_success
    assert admin.calls[-1][2]["by"] == "Zoë"


@pytest.mark.parametrize("name", ["x" * 201, b"a\x01b"])
def test_an_actor_that_would_spoil_the_record_is_refused(
    client: httpx.Client, admin: FakeAdmin, name: str | bytes
) -> None:
    answer = client.post(f"{MODEL}/rollback", json={}, headers={"X-Actor": name})
    assert answer.status_code == 400
    assert admin.calls == []


DECLARED = {"models": {"digits": {"stable": "2", "labels": {"champion": "1"}}}}
TOML = '[models.digits]\nstable = "2"\nlabels = { champion = "1" }\n'


def test_a_declaration_may_be_json_or_toml(client: httpx.Client, admin: FakeAdmin) -> None:
    admin.changes = [{"model": "digits", "field": "stable", "from": "1", "to": "2"}]
    toml = {"content": TOML, "headers": {"Content-Type": "application/toml"}}
    for body in ({"json": DECLARED}, toml):
        assert client.post("/admin/diff", **body).json() == admin.changes
        assert admin.calls.pop() == ("diff", (DECLARED,), {})
    answer = client.post("/admin/apply", json={**DECLARED, "reason": "why"})
    assert answer.json() == {"changes": admin.changes}
    assert admin.calls.pop() == ("apply", (DECLARED,), WHO)
    assert client.post("/admin/apply", params={"reason": "why"}, **toml).is_success
    assert admin.calls.pop() == ("apply", (DECLARED,), WHO)


@pytest.mark.parametrize("body", [b"[models", b"\xff", b"a = " + b"[" * 5000])
def test_what_is_not_toml_is_refused(client: httpx.Client, admin: FakeAdmin, body: bytes) -> None:
    headers = {"Content-Type": "application/toml"}
    answer = client.post("/admin/apply", content=body, headers=headers)
    assert answer.status_code == 400
    assert "TOML" in answer.json()["error"]
    assert admin.calls == []


def test_golden_requests_keep_numbers_that_are_not_finite(
    client: httpx.Client, admin: FakeAdmin
) -> None:
    admin.golden = [{"data": [1.5]}, {"data": [math.inf, None]}]
    answer = client.post(f"{MODEL}/golden", json={"count": 5, "version": "2", "timeout_s": 3})
    assert answer.json() == admin.golden
    expected = ("record_golden", ("digits", 5), {"version": "2", "timeout_s": 3.0})
    assert admin.calls.pop() == expected
    client.post(f"{MODEL}/golden", json={"count": 1})
    assert admin.calls.pop()[2] == {"version": "", "timeout_s": 60.0}


# What stands


def test_reading(client: httpx.Client, admin: FakeAdmin) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/admin/models").json() == [STATUS]
    assert client.get(MODEL).json() == STATUS
    assert client.get(f"{MODEL}/shadow").json() == REPORT
    admin.worst = [{"inputs": [], "primary": [], "shadow": [], "distance": math.inf}]
    assert client.get(f"{MODEL}/shadow/worst").json() == admin.worst
    assert client.get("/admin/history/verify").json()["intact"] is True


def test_what_became_of_the_predictions_is_told(client: httpx.Client) -> None:
    assert client.get("/admin/stream").json() == STREAM


def test_history_may_be_narrowed(client: httpx.Client, admin: FakeAdmin) -> None:
    assert client.get("/admin/history").json() == ENTRIES
    assert admin.calls.pop() == ("history", ("",), {"limit": 100, "before": 0})
    client.get("/admin/history", params={"model": "digits", "limit": 5, "before": 3})
    assert admin.calls.pop() == ("history", ("digits",), {"limit": 5, "before": 3})


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("limit=0", "query parameter limit must be a whole number from 1 to 1000, not '0'"),
        ("limit=1001", "from 1 to 1000"),
        ("before=-1", "query parameter before must be a whole number"),
        ("before=" + "9" * 5000, "query parameter before must be a whole number"),
        ("before=²", "query parameter before must be a whole number"),
        ("limt=3", "query parameter unknown key 'limt'; did you mean 'limit'?"),
    ],
)
def test_a_wrong_query_is_refused(client: httpx.Client, query: str, message: str) -> None:
    answer = client.get(f"/admin/history?{query}")
    assert answer.status_code == 400
    assert message in answer.json()["error"]


# What was true


@pytest.mark.parametrize(
    "kind",
    ["application/json", "application/x-ndjson", "text/csv", "application/vnd.apache.parquet"],
)
def test_labels_are_passed_on_as_they_came(running: RunningAdmin, kind: str) -> None:
    headers = {"Content-Type": f"{kind}; charset=utf-8"}
    answer = httpx.post(f"{running.url}{MODEL}/labels", content=b"\x00 any", headers=headers)
    assert (answer.status_code, answer.json()) == (200, OUTCOMES)
    assert running.truth.given.pop() == ("digits", kind, b"\x00 any")
    report = httpx.get(f"{running.url}{MODEL}/labels").json()
    assert (report["held"], report["joined"]) == (1200, OUTCOMES["joined"])


@pytest.mark.parametrize(
    ("model", "kind", "size", "status"),
    [
        ("digits", "text/plain", 1, 415),
        ("digits", "application/x-www-form-urlencoded", 1, 415),
        ("nothing", "text/csv", 1, 404),
        ("digits", "text/csv", MAX_LABELS_BYTES + 1, 413),
    ],
)
def test_labels_that_are_not_taken(
    running: RunningAdmin, model: str, kind: str, size: int, status: int
) -> None:
    url = f"{running.url}/admin/models/{model}/labels"
    answer = httpx.post(url, content=b"x" * size, headers={"Content-Type": kind})
    assert answer.status_code == status
    assert answer.json()["error"]
    assert running.truth.given == []


# What is watched


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("sample=0", "query parameter sample must be a share above 0 and at most 1, not '0'"),
        ("sample=nan", "query parameter sample must be a share above 0"),
        ("limit=0", "query parameter limit must be a whole number of predictions above 0"),
        ("fields=", "query parameter fields must be names of tensors and features"),
        ("field=x", "unknown key 'field'; did you mean 'fields'?"),
    ],
)
def test_a_wrong_wish_to_watch_is_refused(client: httpx.Client, query: str, message: str) -> None:
    answer = client.get(f"{MODEL}/stream?{query}")
    assert answer.status_code == 400
    assert message in answer.json()["error"]


def test_of_a_model_that_there_is_not_nothing_is_watched(client: httpx.Client) -> None:
    assert client.get("/admin/models/nothing/stream").status_code == 404


def test_whether_there_is_a_stream_may_be_asked_without_opening_it(client: httpx.Client) -> None:
    for _ in range(3):
        answer = client.head(f"{MODEL}/stream")
        assert answer.headers["content-type"].startswith("text/event-stream")


# What others read


@pytest.mark.parametrize("verdict", ["pass", "fail", "inconclusive", "running"])
def test_argo_reads_any_verdict_with_status_200(
    client: httpx.Client, admin: FakeAdmin, verdict: str
) -> None:
    admin.verdict = {**VERDICT, "verdict": verdict}
    answer = client.get(f"{MODEL}/canary")
    assert (answer.status_code, answer.json()) == (200, admin.verdict)


@pytest.mark.parametrize(
    ("verdict", "require", "status"),
    [
        ("pass", None, 200),
        ("running", None, 200),
        ("inconclusive", "not-fail", 200),
        ("fail", None, 412),
        ("pass", "pass", 200),
        ("running", "pass", 412),
        ("inconclusive", "pass", 412),
    ],
)
def test_flaggers_gate_is_shut_by_the_verdict(
    client: httpx.Client, admin: FakeAdmin, verdict: str, require: str | None, status: int
) -> None:
    admin.verdict = {**VERDICT, "verdict": verdict, "reason": "errors: too many"}
    body: dict[str, Any] = {"name": "digits", "namespace": "prod", "phase": "Progressing"}
    body |= {"checksum": "5d", "metadata": {"require": require, "team": "x"} if require else None}
    answer = client.post(f"{MODEL}/canary/gate", json=body)
    assert answer.status_code == status
    if status == 412:
        message = f"version 2 of digits: {verdict}; errors: too many"
        assert answer.json() == {"error": message}


def test_the_gate_of_a_model_without_a_canary_is_shut(
    client: httpx.Client, admin: FakeAdmin
) -> None:
    admin.verdict = None
    assert client.post(f"{MODEL}/canary/gate", json={}).status_code == 404
    assert client.get(f"{MODEL}/canary").status_code == 404


@pytest.mark.parametrize("metadata", ["x", {"require": "all"}, [1]])
def test_a_gate_that_is_asked_for_the_unknown_is_refused(
    client: httpx.Client, metadata: Any
) -> None:
    answer = client.post(f"{MODEL}/canary/gate", json={"metadata": metadata})
    assert answer.status_code == 400
    assert "'require' one of" in answer.json()["error"]


# Refusals


@pytest.mark.parametrize(
    ("error", "status"), [(Conflict, 409), (LoadError, 400), (ShuttingDown, 503)]
)
def test_a_refusal_is_told(
    client: httpx.Client, admin: FakeAdmin, error: type[Exception], status: int
) -> None:
    admin.refusal = error("the reason")
    answer = client.post(f"{MODEL}/rollback", json={})
    assert (answer.status_code, answer.json()) == (status, {"error": "the reason"})


@pytest.mark.parametrize(
    ("method", "path", "body", "message"),
    [
        ("POST", "/promote", {"verison": "2"}, "unknown key 'verison'; did you mean 'version'?"),
        ("POST", "/promote", {}, "version is missing; known are version, reason"),
        ("POST", "/promote", {"version": None}, "version must be text, not None"),
        ("POST", "/promote", {"version": "2", "reason": 1}, "reason must be text"),
        ("POST", "/rollback", {"reason": "x" * 2001}, "at most 2000 characters"),
        ("POST", "/rollback", {"version": "2"}, "unknown key 'version'"),
        ("PUT", "/canary", {"reason": []}, "reason must be text"),
        ("PUT", "/canary", {}, "version is missing: which version is the candidate?"),
        ("PUT", "/labels/a", {}, "version is missing"),
        ("POST", "/golden", {}, "count is missing"),
        ("POST", "/golden", {"count": 0}, "count must be an integer of at least 1"),
        ("POST", "/golden", {"count": 1001}, "count must be an integer from 1 to 1000"),
        ("POST", "/golden", {"count": 1, "timeout_s": 0}, "timeout_s must be seconds above 0"),
        ("POST", "/golden", {"count": 1, "timeout_s": 601}, "at most 600"),
    ],
)
def test_a_wrong_body_is_refused_by_its_key(
    client: httpx.Client,
    admin: FakeAdmin,
    method: str,
    path: str,
    body: dict[str, Any],
    message: str,
) -> None:
    answer = client.request(method, MODEL + path, json=body)
    assert answer.status_code == 400
    assert message in answer.json()["error"]
    assert admin.calls == []


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/admin/models/nobody", 404),
        ("GET", "/admin/nothing", 404),
        ("PATCH", "/admin/models", 405),
        ("GET", f"{MODEL}/promote", 405),
    ],
)
def test_errors_have_one_form(client: httpx.Client, method: str, path: str, status: int) -> None:
    answer = client.request(method, path)
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]


# What a page in a browser may try


def ask(running: RunningAdmin, method: str, path: str, *headers: str, body: bytes = b"") -> Answer:
    lines = [f"{method} {path} HTTP/1.1", *headers, f"Content-Length: {len(body)}"]
    with Wire(running.port) as wire:
        return wire.ask("\r\n".join(lines).encode() + b"\r\n\r\n" + body)


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8003", "127.0.0.1:1", "[::1]:8003", "10.1.2.3", "gateway.example:80"],
)
def test_a_host_of_the_servers_own_is_answered(running: RunningAdmin, host: str) -> None:
    assert ask(running, "GET", "/healthz", f"Host: {host}").status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "[::1].evil.example",
        "",
        "1",
    ],
)
def test_a_host_that_was_bound_to_this_address_is_refused(running: RunningAdmin, host: str) -> None:
    answer = ask(running, "GET", "/healthz", f"Host: {host}")
    assert answer.status == 403
    assert "--admin-allowed-host " in answer.error


@pytest.mark.parametrize("headers", [(), ("Host: localhost", "Host: evil.example")])
def test_a_host_must_be_named_once(running: RunningAdmin, headers: tuple[str, ...]) -> None:
    assert ask(running, "GET", "/admin/models", *headers).status in (400, 403)
    assert running.admin.calls == []


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", None]
)
def test_what_a_form_may_send_changes_nothing(running: RunningAdmin, kind: str | None) -> None:
    headers = ["Host: localhost"] + ([] if kind is None else [f"Content-Type: {kind}"])
    answer = ask(running, "POST", f"{MODEL}/rollback", *headers, body=b"{}")
    assert answer.status == 415
    assert "Content-Type must be application/json" in answer.error
    assert running.admin.calls == []


def test_a_page_that_asks_first_is_not_allowed(running: RunningAdmin) -> None:
    answer = ask(
        running,
        "OPTIONS",
        f"{MODEL}/canary",
        "Host: localhost",
        "Origin: https://evil.example",
        "Access-Control-Request-Method: DELETE",
    )
    assert answer.status == 405
    assert not [name for name in answer.headers if name.startswith("access-control")]


JSON = ("Host: localhost", "Content-Type: application/json; charset=utf-8")


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff", b'"x"', b"[" * 200])
def test_malformed_bodies(running: RunningAdmin, body: bytes) -> None:
    answer = ask(running, "POST", f"{MODEL}/promote", *JSON, body=body)
    assert answer.status == 400
    assert answer.error
    assert running.admin.calls == []


def test_a_body_that_is_too_large_is_refused(running: RunningAdmin) -> None:
    fits = b'{"version": "2"' + b" " * (MAX_BODY_BYTES - 16) + b"}"
    assert ask(running, "POST", f"{MODEL}/promote", *JSON, body=fits).status == 200
    running.admin.calls.clear()
    answer = ask(running, "POST", f"{MODEL}/promote", *JSON, body=fits + b" ")
    assert answer.status == 413
    assert str(MAX_BODY_BYTES) in answer.error
    assert running.admin.calls == []


def test_a_compressed_body_is_refused(running: RunningAdmin) -> None:
    answer = ask(running, "POST", f"{MODEL}/promote", *JSON, "Content-Encoding: gzip", body=b"x")
    assert answer.status == 415
    assert running.admin.calls == []


def test_a_delete_with_a_body_is_told_where_its_reason_goes(running: RunningAdmin) -> None:
    answer = ask(running, "DELETE", f"{MODEL}/canary", *JSON, body=b'{"reason": "x"}')
    assert answer.status == 400
    assert "?reason=" in answer.error
    assert running.admin.calls == []


# The port and its description


def test_a_taken_port_names_itself_and_the_options(running: RunningAdmin) -> None:
    with (
        pytest.raises(StartupError, match=f":{running.port}.*--admin-port.*--admin-host"),
        RunningAdmin(port=running.port),
    ):
        pass


def test_once_it_stops_accepting_nobody_new_gets_in() -> None:
    with RunningAdmin() as running:
        running.front.stop_accepting()
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{running.url}/healthz")


def test_the_openapi_document_has_every_route_and_no_other() -> None:
    described = {
        (method.upper(), path)
        for path, item in admin_document("1")["paths"].items()
        for method in item
        if method != "parameters"
    }
    routed = {
        (method, route.path)
        for route in (
            *AdminEndpoints(FakeAdmin(), dict).routes(),
            *WatchEndpoints(FakeAdmin(), LiveStream(PredictionStream(), 1), FakeTruth()).routes(),
            *AlertEndpoints(FakeAdmin()).routes(),
            *DriftEndpoints(FakeAdmin()).routes(),
        )
        for method in route.methods or ()
        if method != "HEAD"
    }
    assert described == routed | {("GET", "/openapi.json"), ("GET", "/docs")}


def wrong(document: dict[str, Any], schema: dict[str, Any], value: Any, where: str = "") -> str:
    """Where ``value`` is not as the ``schema`` of ``document`` has it; ``""`` for nowhere."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/components/schemas/")
        return wrong(document, document["components"]["schemas"][name], value, where)
    kinds = {
        "object": dict, "array": list, "string": str, "integer": int, "number": (int, float),
        "boolean": bool, "null": type(None),
    }  # fmt: skip
    kind = schema.get("type", [])
    allowed = [kind] if isinstance(kind, str) else kind
    if allowed and not any(isinstance(value, kinds[each]) for each in allowed):
        return where or "all of it"
    if value not in schema.get("enum", [value]):
        return where
    if isinstance(value, list):
        parts = [("[]", schema.get("items", {}), item) for item in value]
    elif isinstance(value, dict):
        if set(schema.get("required", ())) - set(value):
            return f"{where} lacks a key"
        properties = schema.get("properties", {})
        parts = [(f".{key}", properties.get(key, {}), item) for key, item in value.items()]
    else:
        parts = []
    found = (wrong(document, part, item, where + name) for name, part, item in parts)
    return next(filter(None, found), "")


BODIES: dict[str, dict[str, Any]] = {
    "Promotion": {"version": "2"},
    "Label": {"version": "2"},
    "Golden": {"count": 1},
    "CanaryPlan": PLAN,
    "ShadowPlan": {"version": "3"},
    "Declaration": DECLARED,
    "Labels": {"labels": [{"id": "r7", "value": 1}]},
    "Silence": {"for_s": 60},
}


@pytest.mark.parametrize(
    ("path", "method"),
    [
        (path, method)
        for path, item in admin_document("1")["paths"].items()
        for method in item
        if method in ("get", "post", "put", "delete")
        and path not in ("/docs", "/openapi.json", "/admin/models/{model}/stream")
    ],
)
def test_answers_are_as_the_document_says(
    client: httpx.Client, admin: FakeAdmin, path: str, method: str
) -> None:
    document = client.get("/openapi.json").json()
    operation = document["paths"][path][method]
    body: dict[str, Any] | None = None
    if "requestBody" in operation:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        body = BODIES.get(schema["$ref"].rsplit("/", 1)[1], {})
        assert wrong(document, schema, body) == ""
    admin.changes = [{"model": "digits", "field": "stable", "from": "1", "to": "2"}]
    answer = client.request(method, path.format(model="digits", label="champion"), json=body)
    assert answer.status_code == 200
    content = operation["responses"]["200"]["content"]["application/json"]
    assert wrong(document, content["schema"], answer.json()) == ""


def test_the_document_is_whole(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    assert (document["openapi"], document["info"]["version"]) == ("3.1.0", "1.2.3")
    for reference in references(document):
        node = document
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]
    for path, item in document["paths"].items():
        named = [each["name"] for each in item.get("parameters", ())]
        assert [f"{{{name}}}" in path for name in named] == [True] * path.count("{")
        for operation in (each for method, each in item.items() if method != "parameters"):
            assert operation["summary"]
            assert all(
                "$ref" in each or each["description"] for each in operation["responses"].values()
            )
            assert all(
                each["in"] in ("header", "query") and each["schema"]["description"]
                for each in operation.get("parameters", ())
            )


def test_the_docs_page_tells_of_every_path(client: httpx.Client) -> None:
    page = client.get("/docs").text
    document = client.get("/openapi.json").json()
    for path, item in document["paths"].items():
        assert path in page
        for method in set(item) - {"parameters"}:
            assert f'<span class="method {method}">' in page
    assert "Query reason" in page
    assert "Header X-Actor" in page
