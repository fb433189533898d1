"""What a browser is told, and what a page of another site cannot do with a visitor's cookie."""

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from functions.auth import COOKIE, SECURE_COOKIE
from tests.support.app import URL, calling, composed

PREFER = {"Prefer": "respond-async"}
FRIEND = "https://app.example.org"
UNSAFE = [
    ("POST", "/chat/stream"),
    ("POST", "/chat"),
    ("PATCH", "/sessions/00000000-0000-4000-8000-000000000000"),
    ("DELETE", "/sessions/00000000-0000-4000-8000-000000000000"),
]


@pytest.fixture
async def app(database_url: str) -> AsyncIterator[FastAPI]:
    async with composed(database_url) as composed_app:
        yield composed_app


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with calling(app) as caller:
        yield caller


STRANGE = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": f"{URL}.evil.example"},
    {"Origin": URL.replace("http://", "http://user@")},
    {"Origin": URL.replace("http://", "https://")},
    {"Origin": URL.replace("http://", "ftp://")},
    {"Origin": "http://["},
    {"Origin": "http://[::1"},
    {"Origin": ""},
    {"Origin": "http://", "Host": ""},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Origin": "null", "Host": ""},
]
OURS = [{}, {"Origin": URL}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}]


async def test_a_page_of_another_site_changes_nothing(client: httpx.AsyncClient) -> None:
    for method, path in UNSAFE:
        for headers in STRANGE:
            reply = await client.request(method, path, json={"message": "x", "title": "x"}, headers=headers)
            assert (reply.status_code, reply.json()["code"]) == (403, "origin_refused"), (path, headers)
            assert "access-control-allow-origin" not in reply.headers
    assert (await client.get("/sessions")).json()["sessions"] == []


async def test_our_own_page_and_clients_that_are_no_browsers_may(client: httpx.AsyncClient) -> None:
    for headers in OURS:
        reply = await client.post("/chat/stream", json={"message": "x"}, headers={**headers, **PREFER})
        assert reply.status_code == 202, headers


async def test_reading_is_answered_but_not_shown_to_another_sites_page(client: httpx.AsyncClient) -> None:
    reply = await client.get("/sessions", headers={"Origin": "https://evil.example"})
    assert reply.status_code == 200
    assert not [name for name in reply.headers if name.startswith("access-control")]


async def test_only_pages_on_the_list_may_use_the_api(database_url: str) -> None:
    async with composed(database_url, cors_origins=f"{FRIEND}, https://b.example.org") as app, calling(app) as client:
        asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type, prefer"}
        allowed = await client.options("/chat/stream", headers={"Origin": FRIEND, **asks})
        assert allowed.headers["access-control-allow-origin"] == FRIEND
        refused = await client.options("/chat/stream", headers={"Origin": "https://evil.example", **asks})
        assert "access-control-allow-origin" not in refused.headers
        reply = await client.post("/chat/stream", json={"message": "x"}, headers={"Origin": FRIEND, **PREFER})
        assert reply.status_code == 202
        assert reply.headers["access-control-allow-origin"] == FRIEND
        assert "Location" in reply.headers["access-control-expose-headers"]
        evil = await client.post("/chat", json={"message": "x"}, headers={"Origin": "https://evil.example"})
        assert evil.status_code == 403


async def test_every_answer_forbids_guessing_its_type_and_being_kept(client: httpx.AsyncClient) -> None:
    for path in ("/sessions", "/healthz", "/nothing", "/c/1", "/assets/none.js", "/openapi.json"):
        reply = await client.get(path)
        assert reply.headers["x-content-type-options"] == "nosniff", path
        assert "default-src 'none'" in reply.headers["content-security-policy"], path
        assert "frame-ancestors 'none'" in reply.headers["content-security-policy"], path
        assert reply.headers["referrer-policy"] == "no-referrer", path
    assert (await client.get("/sessions")).headers["cache-control"] == "no-store"
    refused = await client.post("/chat", content=b"x", headers={"Content-Type": "text/plain"})
    assert (refused.status_code, refused.headers["x-content-type-options"]) == (415, "nosniff")


async def test_an_error_that_nobody_expected_is_told_with_all_headers(database_url: str) -> None:
    async with composed(database_url, cors_origins=FRIEND) as app:

        async def fails() -> None:
            raise ZeroDivisionError("canary")

        app.add_api_route("/fails", fails)
        async with calling(app) as client:
            reply = await client.get("/fails", headers={"Origin": FRIEND})
    assert (reply.status_code, reply.json()["code"]) == (500, "internal_error")
    assert "canary" not in reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.headers["access-control-allow-origin"] == FRIEND
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in reply.headers["content-security-policy"]
    assert reply.headers["cache-control"] == "no-store"


async def test_no_address_is_made_of_the_host_that_a_request_names(client: httpx.AsyncClient) -> None:
    for path in ("/sessions/", "/chat/stream/", "/healthz/"):
        reply = await client.get(path, headers={"Host": "evil.example"})
        assert (reply.status_code, reply.headers.get("location")) == (404, None), path


async def test_behind_tls_the_cookie_is_secure_and_the_browser_stays_there(app: FastAPI) -> None:
    async def by_tls(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "scheme": "https"}, receive, send)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(by_tls), base_url=URL) as client:
        reply = await client.get("/sessions")
        planted = await client.get("/sessions", headers={"Cookie": f"{COOKIE}={_value(reply)}"})
        ours = await client.get("/sessions", headers={"Cookie": f"{SECURE_COOKIE}={_value(reply)}"})
    assert reply.headers["set-cookie"].startswith(f"__Host-{COOKIE}=")
    assert {"Secure", "Path=/"} <= set(reply.headers["set-cookie"].split("; "))
    assert reply.headers["strict-transport-security"] == "max-age=31536000"
    assert _value(planted) != _value(reply), "a cookie that another subdomain may have set names nobody"
    assert "set-cookie" not in ours.headers


def _value(reply: httpx.Response) -> str:
    return reply.headers["set-cookie"].partition(";")[0].partition("=")[2]


async def test_without_tls_no_browser_is_told_to_stay_there(client: httpx.AsyncClient) -> None:
    reply = await client.get("/sessions")
    assert "strict-transport-security" not in reply.headers
    assert reply.headers["set-cookie"].startswith(COOKIE)
    assert "Secure" not in reply.headers["set-cookie"]
