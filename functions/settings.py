"""The one place that reads the environment. A wrong value is refused at start with the setting's name."""

import os
import re
from ipaddress import ip_network
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict
from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

PROVIDER_MODEL = re.compile(r"[a-z][\w-]*:\S+")
SERVICE = re.compile(r"https?://[^\s/]+(?:/\S*)?")
Switch = Literal["on", "off"]
PREFIX = "PULSELINE_"
SECRETS = Path("/run/secrets")  # in a container: files, each named as a setting; the environment wins
MODULE_AND_NAME = re.compile(r"[\w.]+:\w+\Z")
ADDRESS_NEEDED = "must be a postgresql:// address, for example postgresql://me@localhost/pulseline"
SECRET = frozenset(  # never repeated in a message
    ["DATABASE_URL"] + [PREFIX + name for name in ("JWT_SECRET", "METRICS_TOKEN", "RERANKER_KEY", "SECRET_KEY")]
)


def lend_provider_keys() -> None:
    """A provider's package looks for its key in the environment alone. For this process a file of the key's name among
    the SECRETS is put there; the environment wins, and what is empty is none."""
    for file in SECRETS.glob("*_API_KEY"):
        if not os.environ.get(file.name) and (key := file.read_text().strip()):
            os.environ[file.name] = key


def _words(value: str) -> list[str]:
    return [word for part in value.split(",") if (word := part.strip())]


def _is_origin(word: str) -> bool:
    parts = urlsplit(word)
    return parts.scheme in ("http", "https") and word == f"{parts.scheme}://{parts.netloc}" and "*" not in word


class Settings(BaseSettings):
    """`DATABASE_URL` has no prefix; every other name here is PULSELINE_ and the field in capitals."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        secrets_dir=SECRETS if SECRETS.is_dir() else None,
    )

    database_url: str | None = Field(default=None, validation_alias="DATABASE_URL")
    home: Path = Path(".pulseline")
    model: str = "extractive"
    embeddings: str = "minilm"
    reranker: str = "maxsim"
    reranker_key: str | None = None
    region: Literal["international", "us", "ca", "uk", "ie", "eu", "au", "nz"] = "international"
    history_tokens: int = Field(default=2000, ge=0)
    graph: str | None = None
    secret_key: str | None = Field(default=None, min_length=16)
    anonymous: Switch = "on"
    jwt_issuer: str | None = Field(default=None, pattern=r"^https?://\S+$")
    jwt_audience: str | None = None
    jwt_jwks_url: str | None = Field(default=None, pattern=r"^https?://\S+$")
    jwt_secret: str | None = Field(default=None, min_length=32)
    trusted_proxies: str = "127.0.0.1"
    cors_origins: str = ""
    hsts_seconds: int = Field(default=31_536_000, ge=0)
    max_body_bytes: int = Field(default=65_536, ge=1024)
    max_history_bytes: int = Field(default=524_288, ge=1024)  # a hundred answers of 3 KB; others wait while it is read
    max_message_characters: int = Field(default=4000, ge=1, le=4000)
    max_turns_per_minute: int = Field(default=60, ge=0)
    max_turns_per_owner: int = Field(default=20, ge=0)
    max_tails: int = Field(default=10_000, ge=1)
    max_tails_per_owner: int = Field(default=0, ge=0)
    notify: Switch = "on"
    worker: Switch = "on"
    run_function: str | None = None
    stream_window_seconds: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    heartbeat_seconds: float = Field(default=5, gt=0, le=10)  # the page gives up a connection after 15 s of silence
    lease_seconds: float = Field(default=6, ge=0.3, le=3600)
    first_token_timeout_seconds: float = Field(default=30, gt=0, allow_inf_nan=False)
    token_timeout_seconds: float = Field(default=30, gt=0, allow_inf_nan=False)
    turn_timeout_seconds: float = Field(default=120, gt=0, allow_inf_nan=False)
    max_turns: int = Field(default=500, ge=1)
    pool_size: int = Field(default=10, ge=2)
    drain_seconds: float = Field(default=5, ge=0, allow_inf_nan=False)
    retention_days: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    metrics_port: int | None = Field(default=None, ge=1, le=65535)
    metrics_token: str | None = Field(default=None, min_length=16)
    traces: str | None = Field(default=None, pattern=r"^https?://\S+$")
    langsmith: Switch = "off"
    log_format: Literal["text", "json"] = "text"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("database_url")
    @classmethod
    def _postgres(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("postgresql://", "postgres://")):
            raise ValueError(ADDRESS_NEEDED)
        try:
            conninfo_to_dict(value or "")
        except psycopg.Error:
            raise ValueError(f"{ADDRESS_NEEDED}; write %25 for a % in it") from None
        return value

    @field_validator("embeddings")
    @classmethod
    def _embeddings(cls, value: str) -> str:
        if value != "minilm" and not PROVIDER_MODEL.fullmatch(value):
            raise ValueError("must be minilm, or provider:model as LangChain's init_embeddings takes it")
        return value

    @field_validator("reranker")
    @classmethod
    def _reranker(cls, value: str) -> str:
        if value != "maxsim" and not SERVICE.fullmatch(value):
            raise ValueError("must be maxsim, or the address of a /rerank service: http://host/rerank?model=NAME")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: str) -> str:
        for word in _words(value):
            if word != "*":
                ip_network(word)
        return value

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: str) -> str:
        if wrong := [word for word in _words(value) if not _is_origin(word)]:
            raise ValueError(f"must be origins such as https://app.example.org, with commas between; not {wrong[0]}")
        return value

    @model_validator(mode="after")
    def _tokens_are_for_us(self) -> "Settings":
        if (self.jwt_issuer or self.jwt_secret) and not self.jwt_audience:
            raise PydanticCustomError("jwt_audience", "PULSELINE_JWT_AUDIENCE: name whom the tokens must be for")
        return self

    @property
    def origins(self) -> list[str]:
        """Of other pages that may use this API, beside our own."""
        return _words(self.cors_origins)

    @property
    def proxies(self) -> list[str]:
        """Whose X-Forwarded headers are believed."""
        return _words(self.trusted_proxies)

    @field_validator("graph")
    @classmethod
    def _module_and_factory(cls, value: str | None) -> str | None:
        if value is not None and not MODULE_AND_NAME.match(value):
            raise ValueError("must be module:name, for example my_agent:graph")
        return value


def describe(error: ValidationError) -> str:
    """One line a setting: its name and what is wrong with it."""
    lines = []
    for problem in error.errors():
        if not problem["loc"]:
            lines.append(problem["msg"])  # of several settings; it names them itself
            continue
        field = str(problem["loc"][0])
        name = field if field.isupper() else PREFIX + field.upper()
        got = "" if name in SECRET else f" (got {problem['input']!r})"
        lines.append(f"{name}: {problem['msg']}{got}")
    return "\n".join(lines)


def unknown(environment: dict[str, str]) -> list[str]:
    """PULSELINE_ names that are no settings: most likely misspelt."""
    known = {PREFIX + field.upper() for field in Settings.model_fields}
    return sorted(name for name in environment if name.startswith(PREFIX) and name not in known)
