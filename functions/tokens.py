"""Bearer tokens: whose a JWT is, signed by an OpenID provider (JWT_ISSUER) or with a shared secret (JWT_SECRET)."""

import asyncio
import logging
import math
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWK, PyJWKSet

from functions.auth import BadToken, IssuerUnavailable
from functions.settings import Settings
from graph.eventlog.events import storable

logger = logging.getLogger(__name__)
Key = PyJWK | RSAPublicKey
PUBLIC_KEYS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
SHARED_SECRET = ("HS256", "HS384", "HS512")
LEEWAY_SECONDS = 10.0
KEYS_LAST_SECONDS = 3600.0  # then newer ones are fetched beside
KEYS_GOOD_SECONDS = 24 * 3600.0  # however long the issuer is away; then no token is taken
KEYS_AGAIN_SECONDS = 10.0  # a token with an unknown key makes us ask the issuer at most so often
FAILED_SECONDS = 2.0  # for so long a failed fetch is everybody's
FETCH_SECONDS = 5.0
SUBJECT_MAX_CHARACTERS = 255


class Tokens:
    """Gives the owner of a token. Which algorithms are taken follows from the settings, never from the token."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._keys = IssuerKeys(settings) if settings.jwt_issuer and not settings.jwt_secret else None

    async def owner(self, token: str) -> str:
        try:
            subject = (await self._claims(token))["sub"]
        except (jwt.PyJWTError, TypeError, ValueError) as error:  # TypeError: the algorithm is of another kind of key
            raise BadToken from error
        if not 0 < len(subject) <= SUBJECT_MAX_CHARACTERS or storable(subject) != subject:
            raise BadToken
        return f"user:{self._settings.jwt_issuer or ''}#{subject}"

    async def _claims(self, token: str) -> dict[str, Any]:
        settings = self._settings
        key = await self._keys.of(token) if self._keys else settings.jwt_secret
        assert key is not None
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=PUBLIC_KEYS if self._keys else SHARED_SECRET,
            audience=settings.jwt_audience,
            issuer=settings.jwt_issuer,
            leeway=LEEWAY_SECONDS,
            options={"require": ["exp", "sub", "aud", *(["iss"] if settings.jwt_issuer else [])]},
        )
        return claims


class IssuerKeys:
    """The issuer's public keys, found through its discovery document unless JWT_JWKS_URL names them.

    Whoever comes while they are fetched waits for the same fetch, and soon after a failed one nobody asks again. Keys
    that are known stay good for a day while the issuer is away, and nobody waits for newer ones, but on Lambda, where a
    process stands still after its response. An RSA key that names no algorithm is good for all of RSA's; PyJWT would
    take RS256 alone.
    """

    def __init__(self, settings: Settings) -> None:
        self._issuer, self._known_url = settings.jwt_issuer or "", settings.jwt_jwks_url
        self._url = self._known_url
        self._stands_still = settings.run_function is not None
        self._keys: dict[str | None, Key] = {}
        self._fetched_at = self._again_at = -math.inf
        self._fetching: asyncio.Task[None] | None = None

    async def of(self, token: str) -> Key:
        """The key that the token names; where it names none, the only one there is."""
        kid = jwt.get_unverified_header(token).get("kid")
        if self._named(kid) is None or self._age() > KEYS_LAST_SECONDS:
            fetching = self._refresh()
            waits = self._stands_still or self._named(kid) is None or self._age() > KEYS_GOOD_SECONDS
            if fetching is not None and waits:
                await asyncio.shield(fetching)
        if self._age() > KEYS_GOOD_SECONDS:
            raise IssuerUnavailable
        key = self._named(kid)
        if key is None:
            raise BadToken
        return key

    async def count(self) -> int:
        """How many there are. Raises IssuerUnavailable."""
        if (fetching := self._refresh()) is not None:
            await fetching
        if not self._keys:
            raise IssuerUnavailable
        return len(self._keys)

    def _named(self, kid: str | None) -> Key | None:
        if kid is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(kid)

    def _age(self) -> float:
        return time.monotonic() - self._fetched_at

    def _refresh(self) -> "asyncio.Task[None] | None":
        """The fetch under way, or a new one; none when it is too soon for another."""
        if self._fetching is None and time.monotonic() >= self._again_at:
            self._fetching = asyncio.create_task(self._fetch_keys())
        return self._fetching

    async def _fetch_keys(self) -> None:
        """Where it fails, discovery begins anew: the keys may have moved."""
        try:
            document = await self._fetch()
            bound = {key.get("kid") for key in document["keys"] if key.get("kty") != "RSA" or "alg" in key}
            self._keys = {
                key.key_id: key if key.key_id in bound else key.key
                for key in PyJWKSet.from_dict(document).keys
                if key.key_type != "oct"
            }
            self._fetched_at = time.monotonic()
            self._again_at = self._fetched_at + KEYS_AGAIN_SECONDS
        except (jwt.PyJWTError, ValueError, AttributeError, KeyError, TypeError, OSError) as error:
            logger.warning("the issuer's keys could not be fetched: %s", type(error).__name__)
            self._url, self._again_at = self._known_url, time.monotonic() + FAILED_SECONDS
        finally:
            self._fetching = None

    async def _fetch(self) -> dict[str, Any]:
        import httpx  # not on a cold start

        try:
            async with httpx.AsyncClient(timeout=FETCH_SECONDS, trust_env=True) as client:
                if self._url is None:
                    about = await _json(client, f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
                    if about["issuer"] != self._issuer:
                        raise ValueError("the discovery document is of another issuer")
                    self._url = str(about["jwks_uri"])
                return await _json(client, self._url)
        except httpx.HTTPError as error:
            raise OSError(type(error).__name__) from error


async def _json(client: Any, url: str) -> dict[str, Any]:
    reply = await client.get(url)
    reply.raise_for_status()
    found: dict[str, Any] = reply.json()
    return found
