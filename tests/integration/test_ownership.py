"""Who may do what: every route that the app has, asked by its owner and by everybody else."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any, NamedTuple
from unittest.mock import patch
from uuid import uuid4

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from fastapi import FastAPI
from itsdangerous import TimestampSigner
from jwt.algorithms import RSAAlgorithm

from functions import auth
from functions.adapters.langgraph_sdk import ABSENT
from functions.auth import COOKIE, COOKIE_MAX_AGE_SECONDS, COOKIE_RENEWED_SECONDS, SALT
from functions.settings import Settings
from functions.tokens import KEYS_GOOD_SECONDS, KEYS_LAST_SECONDS, PUBLIC_KEYS, IssuerKeys, Tokens
from tests.support.app import calling, composed
from tests.support.issuer import AUDIENCE, Issuer, issuing
from tests.support.routes import routes
from tests.support.waiting import until

CANARY = "canary-5d1f0c"
WINDOW_SECONDS = 0.2
OWNER = "alice"

# No route is here by default: a new one fails `test_every_route_has_its_row` until it is given a row in one of these.
PUBLIC = {
    ("GET", "/"),
    ("GET", "/c/{session_id}"),
    ("GET", "/favicon.svg"),
    ("GET", "/assets/*"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
}
# What an owner is answered with, and how to ask; everybody else gets 404, as if the session were not there.
RUN = {"assistant_id": "agent", "input": {"messages": "and then?"}}
SAID = {"id": "said", "role": "user", "parts": [{"type": "text", "text": "and then?"}]}
OF_A_SESSION: dict[tuple[str, str], tuple[int, Any]] = {
    ("GET", "/chat/stream/{session_id}"): (200, None),
    ("GET", "/sessions/{session_id}"): (200, None),
    ("PUT", "/sessions/{session_id}/turns/{turn_id}/feedback"): (204, {"value": 1}),
    ("PATCH", "/sessions/{session_id}"): (204, {"title": "renamed"}),
    ("POST", "/chat/stream/{session_id}/cancel"): (200, {}),
    ("POST", "/chat/stream"): (409, {"message": "and then?", "session_id": "{session_id}"}),
    ("POST", "/chat"): (202, {"message": "and then?", "session_id": "{session_id}", "request_id": "again"}),
    ("DELETE", "/sessions/{session_id}"): (204, None),
    ("POST", "/threads"): (409, {"thread_id": "{session_id}"}),
    ("GET", "/threads/{thread_id}"): (200, None),
    ("GET", "/threads/{thread_id}/state"): (200, None),
    ("GET", "/threads/{thread_id}/state/{checkpoint_id}"): (200, None),
    ("POST", "/threads/{thread_id}/state/checkpoint"): (200, {"checkpoint": {"checkpoint_id": "1"}}),
    ("POST", "/threads/{thread_id}/history"): (200, {}),
    ("GET", "/threads/{thread_id}/runs"): (200, None),
    ("POST", "/threads/{thread_id}/runs"): (409, RUN),
    ("POST", "/threads/{thread_id}/runs/stream"): (409, RUN),
    ("POST", "/threads/{thread_id}/runs/wait"): (409, RUN),
    ("GET", "/threads/{thread_id}/runs/{run_id}"): (200, None),
    ("GET", "/threads/{thread_id}/runs/{run_id}/stream"): (200, None),
    ("GET", "/threads/{thread_id}/runs/{run_id}/join"): (503, None),
    ("POST", "/threads/{thread_id}/runs/{run_id}/cancel"): (202, None),
    ("DELETE", "/threads/{thread_id}"): (204, None),
    ("POST", "/api/chat"): (409, {"id": "{session_id}", "messages": [SAID]}),
    ("GET", "/api/chat/{chat_id}/stream"): (200, None),
    ("POST", "/api/chat/{chat_id}/stop"): (204, None),
}
# What gives everybody his own, or the same to all.
LISTS = {("GET", "/sessions"), ("POST", "/threads/search")}
ALIKE: dict[tuple[str, str], Any] = {
    **dict.fromkeys(ABSENT),
    ("POST", "/assistants/search"): {},
    ("POST", "/assistants/count"): {},
    ("POST", "/threads/count"): {},
    ("POST", "/runs"): RUN,
    ("GET", "/assistants/{assistant_id}"): None,
    ("GET", "/assistants/{assistant_id}/schemas"): None,
    ("POST", "/runs/stream"): RUN,
    ("POST", "/runs/wait"): RUN,
}


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with issuing() as provider:
        yield provider


@pytest.fixture
async def app(database_url: str, issuer: Issuer) -> AsyncIterator[FastAPI]:
    async with composed(
        database_url,
        jwt_issuer=issuer.url,
        jwt_audience=issuer.audience,
        stream_window_seconds=WINDOW_SECONDS,
        max_turns_per_owner=0,
        max_turns_per_minute=0,
    ) as composed_app:
        yield composed_app


class Asked(NamedTuple):
    method: str
    path: str
    body: Any


def _ask(route: tuple[str, str], body: Any, names: dict[str, str]) -> Asked:
    text = {key: value.format(**names) if isinstance(value, str) else value for key, value in (body or {}).items()}
    return Asked(route[0], route[1].format(**names), text if body is not None else None)


async def _send(client: httpx.AsyncClient, asked: Asked) -> httpx.Response:
    return await client.request(asked.method, asked.path, json=asked.body)


def bearer(token: str) -> dict[str, Any]:
    return {"headers": {"Authorization": f"Bearer {token}"}}


def _cookie(app: FastAPI, value: str, *, key: str = "", age_seconds: float = 0) -> dict[str, Any]:
    signer = TimestampSigner(key or app.state.replica.secret_key, salt=SALT)
    with patch.object(signer, "get_timestamp", lambda: int(TimestampSigner.get_timestamp(signer) - age_seconds)):
        return {"cookies": {COOKIE: signer.sign(value).decode()}}


Owning = Callable[[FastAPI, Issuer], dict[str, Any]]
OWNERS: dict[str, Owning] = {
    "token": lambda app, issuer: bearer(issuer.token(OWNER)),
    "cookie": lambda app, issuer: _cookie(app, "anonymous:1"),
}
STRANGERS: dict[str, tuple[int, Owning]] = {
    "another token": (404, lambda app, issuer: bearer(issuer.token("mallory"))),
    "another cookie": (404, lambda app, issuer: _cookie(app, "anonymous:2")),
    "nobody": (404, lambda app, issuer: {}),
    "forged cookie": (404, lambda app, issuer: _cookie(app, "anonymous:1", key="guessed-guessed-guessed")),
    "forged cookie of a token's owner": (
        404,
        lambda app, issuer: _cookie(app, f"user:{issuer.url}#alice", key="guess"),
    ),
    "expired cookie": (404, lambda app, issuer: _cookie(app, "anonymous:1", age_seconds=COOKIE_MAX_AGE_SECONDS + 60)),
    "token in the address": (404, lambda app, issuer: {"params": {"access_token": issuer.token(OWNER)}}),
    "expired token": (401, lambda app, issuer: bearer(issuer.token(OWNER, exp=1_700_000_000))),
    "token without an end": (401, lambda app, issuer: bearer(issuer.token(OWNER, exp=None))),
    "forged token": (401, lambda app, issuer: bearer(issuer.token(OWNER, key=Issuer().key))),
    "wrong audience": (401, lambda app, issuer: bearer(issuer.token(OWNER, aud="another-service"))),
    "no audience": (401, lambda app, issuer: bearer(issuer.token(OWNER, aud=None))),
    "wrong issuer": (401, lambda app, issuer: bearer(issuer.token(OWNER, iss="https://evil.example"))),
    "alg: none": (401, lambda app, issuer: bearer(issuer.unsigned(OWNER))),
    "the public key as a secret": (401, lambda app, issuer: bearer(issuer.confused(OWNER))),
    "not a token": (401, lambda app, issuer: bearer("not-a-token")),
    "bad token with the owner's cookie": (401, lambda app, issuer: {**bearer("x"), **_cookie(app, "anonymous:1")}),
}

DEEP = 9000
HEADERS: dict[str, Any] = {
    "kid: a list": {"alg": "ES256", "kid": ["first"]},
    "kid: null": {"alg": "ES256", "kid": None},
    "kid: a path": {"alg": "ES256", "kid": "../../../../dev/null"},
    "kid: an object": {"alg": "ES256", "kid": {"first": 1}},
    "crit": {"alg": "ES256", "kid": "first", "crit": ["b64"], "b64": False},
    "crit: a number": {"alg": "ES256", "kid": "first", "crit": 1},
    "alg: a number": {"alg": 1, "kid": "first"},
    "alg: a list": {"alg": ["ES256"], "kid": "first"},
    "alg: an object": {"alg": {}, "kid": "first"},
    "no alg": {"kid": "first"},
    "a key of its own": {"alg": "ES256", "jwk": {"kty": "EC"}, "jku": "https://evil.example/keys"},
    "a number of 5000 digits": b'{"alg":' + b"1" * 5000 + b"}",
    "a deep list": b"[" * DEEP,
    "a deep object": b'{"a":' * DEEP,
    "no object": [],
    "no JSON": b"\xff\xfe",
}
CLAIMS: dict[str, dict[str, Any]] = {
    "exp: infinite": {"exp": float("inf")},
    "exp: no number": {"exp": float("nan")},
    "exp: a list": {"exp": [1]},
    "exp: true": {"exp": True},
    "nbf: later": {"nbf": 10**10},
    "iat: later": {"iat": 10**10},
    "aud: a number": {"aud": 5},
    "aud: an object": {"aud": {AUDIENCE: 1}},
    "iss: a list": {"iss": ["https://issuer.example"]},
    "sub: a number": {"sub": 5},
    "sub: empty": {"sub": ""},
    "sub: a lone surrogate": {"sub": "\ud800"},
    "sub: with NUL": {"sub": "alice\x00"},
    "sub: too long": {"sub": "a" * 256},
}


def test_every_route_has_its_row() -> None:
    from functions.app import create_app
    from functions.settings import Settings

    found = routes(create_app(Settings(), "postgresql://nowhere"))
    assert found == PUBLIC | set(OF_A_SESSION) | LISTS | set(ALIKE), (
        "give the new route a row: who may ask it, what others get"
    )


async def _started(client: httpx.AsyncClient) -> dict[str, str]:
    session_id = str(uuid4())
    body = {"message": CANARY, "session_id": session_id, "request_id": "again"}
    reply = await client.post("/chat/stream", json=body, headers={"Prefer": "respond-async"})
    assert reply.status_code == 202, reply.text
    turn_id = reply.json()["turn_id"]
    names = {"session_id": session_id, "turn_id": turn_id, "thread_id": session_id, "run_id": turn_id}
    names |= {"assistant_id": "agent", "checkpoint_id": "1", "namespace": "of-a-subgraph"}
    return {**names, "chat_id": f"{session_id}.{turn_id}"}


@pytest.mark.parametrize("owning", OWNERS)
async def test_an_owner_may_ask_every_route_and_others_learn_nothing(
    app: FastAPI, issuer: Issuer, owning: str, say: Callable[[str], None]
) -> None:
    async with AsyncExitStack() as stack:
        owner = await stack.enter_async_context(calling(app, **OWNERS[owning](app, issuer)))
        names = await _started(owner)
        for stranger, (status, identity) in STRANGERS.items():
            client = await stack.enter_async_context(calling(app, **identity(app, issuer)))
            for route, (_, body) in OF_A_SESSION.items():
                reply = await _send(client, _ask(route, body, names))
                code = "session_not_found" if status == 404 else "unauthenticated"
                assert (reply.status_code, reply.json()["code"]) == (status, code), (stranger, route)
                assert CANARY not in reply.text
            for route in LISTS:
                reply = await _send(client, _ask(route, {} if route[0] == "POST" else None, names))
                assert reply.status_code == (401 if status == 401 else 200), (stranger, route)
                assert names["session_id"] not in reply.text, (stranger, route)
            for route, body in ALIKE.items():
                reply = await _send(client, _ask(route, body, names))
                assert (reply.status_code == 401) == (status == 401), (stranger, route)
                assert CANARY not in reply.text
        for route in LISTS:
            asked = _ask(route, {} if route[0] == "POST" else None, names)
            assert names["session_id"] in (await _send(owner, asked)).text, route
        for route, (status, body) in OF_A_SESSION.items():
            reply = await _send(owner, _ask(route, body, await _started(owner)))
            assert reply.status_code == status, (route, reply.text)
    count = len(OF_A_SESSION) + len(LISTS) + len(ALIKE)
    say(f"ownership: {count} routes x {len(STRANGERS) + 1} callers, owner by {owning}")


async def test_what_is_public_shows_nothing_of_anybody_and_gives_no_owner(app: FastAPI, issuer: Issuer) -> None:
    async with calling(app, **bearer(issuer.token(OWNER))) as owner:
        names = await _started(owner)
    async with calling(app) as nobody:
        for method, path in PUBLIC:
            reply = await nobody.request(method, path.format(**names).replace("*", "index.js"))
            assert reply.status_code in (200, 404, 503), path
            assert CANARY not in reply.text


async def test_a_token_of_any_form_is_refused_in_words(app: FastAPI, issuer: Issuer) -> None:
    tokens = {name: issuer.headed(header) for name, header in HEADERS.items()}
    tokens |= {name: issuer.saying({**issuer.claims(OWNER), **claims}) for name, claims in CLAIMS.items()}
    tokens |= {"a deep payload": issuer.saying(b"[" * DEEP), "a list": issuer.saying(b"[]"), "empty": "", "dots": ".."}
    async with calling(app) as client:
        assert (await client.get("/sessions", **bearer(issuer.saying(issuer.claims(OWNER))))).status_code == 200
        for name, token in tokens.items():
            reply = await client.get("/sessions", **bearer(token))
            assert (reply.status_code, reply.json()["code"]) == (401, "unauthenticated"), name


async def test_without_anonymous_owners_a_request_needs_a_token(database_url: str, issuer: Issuer) -> None:
    settings: dict[str, Any] = {"anonymous": "off", "jwt_issuer": issuer.url, "jwt_audience": issuer.audience}
    async with composed(database_url, **settings) as app, calling(app) as nobody:
        reply = await nobody.get("/sessions")
        assert (reply.status_code, reply.json()["code"]) == (401, "unauthenticated")
        assert reply.headers["www-authenticate"] == 'Bearer realm="pulseline"'
        assert "set-cookie" not in reply.headers
        assert (await nobody.get("/healthz")).status_code == 200
        assert (await nobody.get("/sessions", **bearer(issuer.token(OWNER)))).status_code == 200


async def test_a_token_is_refused_where_no_issuer_is_set_and_its_bearer_is_no_anonymous_owner(
    database_url: str, issuer: Issuer
) -> None:
    async with composed(database_url) as app, calling(app, **bearer(issuer.token(OWNER))) as client:
        assert (await client.get("/sessions")).status_code == 401


async def test_a_shared_secret_signs_tokens_too(database_url: str, issuer: Issuer) -> None:
    secret = "a-secret-that-both-sides-know-0123456789"
    async with composed(database_url, jwt_secret=secret, jwt_audience=issuer.audience) as app, calling(app) as client:
        cases: list[tuple[Any, str, int]] = [
            (secret, "HS256", 200),
            (secret[::-1], "HS256", 401),
            (issuer.key, "ES256", 401),
            (None, "none", 401),
        ]
        for key, algorithm, status in cases:
            token = jwt.encode(issuer.claims(OWNER), key, algorithm)
            assert (await client.get("/sessions", **bearer(token))).status_code == status, algorithm


async def test_keys_are_fetched_once_and_again_when_the_issuer_has_a_new_one(database_url: str) -> None:
    with issuing() as issuer:
        settings: dict[str, Any] = {"jwt_issuer": issuer.url, "jwt_audience": issuer.audience}
        with patch.multiple("functions.tokens", KEYS_AGAIN_SECONDS=0.0, FAILED_SECONDS=0.0):
            async with composed(database_url, **settings) as app, calling(app) as client:
                issuer.away = True
                away = await client.get("/sessions", **bearer(issuer.token(OWNER)))
                assert (away.status_code, away.json()["code"]) == (503, "issuer_unavailable")
                assert away.headers["retry-after"] == "2"
                issuer.away = False
                for _ in range(3):
                    assert (await client.get("/sessions", **bearer(issuer.token(OWNER)))).status_code == 200
                assert issuer.asked.count("/keys") == 1
                old = issuer.token(OWNER)
                issuer.rotate("second")
                assert (await client.get("/sessions", **bearer(issuer.token(OWNER)))).status_code == 200
                assert (await client.get("/sessions", **bearer(old))).status_code == 401
                issuer.away = True
                assert (await client.get("/sessions", **bearer(issuer.token(OWNER)))).status_code == 200


async def test_nobody_waits_for_an_issuer_whose_keys_are_known_and_all_share_its_failure(database_url: str) -> None:
    with issuing() as issuer:
        settings: dict[str, Any] = {"jwt_issuer": issuer.url, "jwt_audience": issuer.audience}
        async with composed(database_url, **settings) as app, calling(app) as client:
            issuer.away = True
            issuer.answers.clear()
            token = bearer(issuer.token(OWNER))
            asking = [asyncio.create_task(client.get("/sessions", **token)) for _ in range(10)]
            await until(lambda: issuer.asked)
            assert not any(request.done() for request in asking)
            issuer.answers.set()
            crowd = [*await asyncio.gather(*asking), await client.get("/sessions", **token)]
            assert {reply.status_code for reply in crowd} == {503}
            assert len(issuer.asked) == 1
            keys = _keys(app)
            keys._again_at = 0.0
            issuer.away = False
            assert (await client.get("/sessions", **token)).status_code == 200
            for age_seconds, status, waits in ((KEYS_LAST_SECONDS, 200, False), (KEYS_GOOD_SECONDS, 503, True)):
                issuer.away, asked = True, len(issuer.asked)
                issuer.answers.clear()
                keys._fetched_at, keys._again_at = time.monotonic() - age_seconds - 1, 0.0
                request = asyncio.create_task(client.get("/sessions", **token))
                await until(lambda before=asked: len(issuer.asked) > before)  # type: ignore[misc]
                if not waits:
                    await request  # and the issuer has not answered yet
                assert request.done() != waits
                issuer.answers.set()
                assert (await request).status_code == status
                await until(lambda: keys._fetching is None)


async def test_on_lambda_newer_keys_come_before_the_response() -> None:
    """After it the process stands still, with what it was about to do."""
    with issuing() as issuer:
        keys = IssuerKeys(Settings(jwt_issuer=issuer.url, jwt_audience=AUDIENCE, worker="off", run_function="run"))
        await keys.of(issuer.token(OWNER))
        keys._fetched_at, keys._again_at = time.monotonic() - KEYS_LAST_SECONDS - 1, 0.0
        await keys.of(issuer.token(OWNER))
        assert keys._fetching is None
        assert keys._age() < KEYS_LAST_SECONDS


async def test_an_rsa_key_that_names_no_algorithm_is_good_for_all_of_them(database_url: str) -> None:
    key = generate_private_key(65537, 2048)
    with issuing() as issuer:
        public = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
        issuer.more_keys = [{**public, "kid": "any"}, {**public, "kid": "one", "alg": "RS256"}]
        async with (
            composed(database_url, jwt_issuer=issuer.url, jwt_audience=AUDIENCE) as app,
            calling(app) as client,
        ):

            async def status(algorithm: str, kid: str, key: Any) -> int:
                token = jwt.encode(issuer.claims("alice"), key, algorithm, {"kid": kid})
                return (await client.get("/sessions", **bearer(token))).status_code

            for algorithm in PUBLIC_KEYS:
                if algorithm.startswith(("RS", "PS")):
                    assert await status(algorithm, "any", key) == 200, algorithm
            assert await status("RS384", "one", key) == 401
            assert await status("ES256", "any", issuer.key) == 401


async def test_keys_that_have_moved_are_found_again(database_url: str) -> None:
    with issuing() as issuer:
        settings: dict[str, Any] = {"jwt_issuer": issuer.url, "jwt_audience": issuer.audience}
        with patch.multiple("functions.tokens", KEYS_AGAIN_SECONDS=0.0, FAILED_SECONDS=0.0):
            async with composed(database_url, **settings) as app, calling(app) as client:
                assert (await client.get("/sessions", **bearer(issuer.token(OWNER)))).status_code == 200
                issuer.keys_path = "/moved"
                issuer.rotate("second")
                token = bearer(issuer.token(OWNER))
                replies = [(await client.get("/sessions", **token)).status_code for _ in range(2)]
                assert replies == [401, 200], "the first finds the old address empty"


def _keys(app: FastAPI) -> IssuerKeys:
    """Of the middleware, which is made with the first request."""
    layer: Any = app.middleware_stack
    while not isinstance(layer, auth.Identity):
        layer = getattr(layer, "app", None) or layer._app
    assert isinstance(layer._tokens, Tokens)
    assert layer._tokens._keys is not None
    return layer._tokens._keys


async def test_unknown_keys_do_not_make_us_ask_the_issuer_without_end(app: FastAPI, issuer: Issuer) -> None:
    async with calling(app) as client:
        assert (await client.get("/sessions", **bearer(issuer.token(OWNER)))).status_code == 200
        before = len(issuer.asked)
        for n in range(20):
            stranger = Issuer()
            stranger.rotate(f"unknown-{n}")
            assert (await client.get("/sessions", **bearer(stranger.token(OWNER)))).status_code == 401
        assert len(issuer.asked) == before


async def test_a_cookie_is_for_this_host_only_and_renewed_before_it_ends(app: FastAPI) -> None:
    async with calling(app) as newcomer:
        cookie = (await newcomer.get("/sessions")).headers["set-cookie"]
        assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(cookie.split("; "))
        assert "Domain" not in cookie
        assert "set-cookie" not in (await newcomer.get("/sessions")).headers
    async with calling(app, **_cookie(app, "anonymous:1", age_seconds=COOKIE_RENEWED_SECONDS + 60)) as regular:
        renewed = (await regular.get("/sessions")).headers["set-cookie"]
    signer = TimestampSigner(app.state.replica.secret_key, salt=SALT)
    assert auth._known(signer, renewed.split(";")[0].partition("=")[2]) is not None
    assert renewed.startswith(f"{COOKIE}=anonymous:1.")
