"""The one place that reads the environment. A wrong value is refused at start with the setting's name."""

import re
from pathlib import Path
from typing import Literal

import psycopg
from psycopg.conninfo import conninfo_to_dict
from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

Switch = Literal["on", "off"]
PREFIX = "PULSELINE_"
MODULE_AND_NAME = re.compile(r"[\w.]+:\w+\Z")
ADDRESS_NEEDED = "must be a postgresql:// address, for example postgresql://me@localhost/pulseline"
SECRET = frozenset({"DATABASE_URL", "PULSELINE_SECRET_KEY"})  # never repeated in a message


class Settings(BaseSettings):
    """`DATABASE_URL` has no prefix; every other name here is PULSELINE_ and the field in capitals."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True)

    database_url: str | None = Field(default=None, validation_alias="DATABASE_URL")
    home: Path = Path(".pulseline")
    model: str = "extractive"
    embeddings: Literal["minilm"] = "minilm"
    reranker: Literal["maxsim"] = "maxsim"
    graph: str | None = None
    secret_key: str | None = Field(default=None, min_length=16)
    notify: Switch = "on"
    worker: Switch = "on"
    run_function: str | None = None
    stream_window_seconds: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    heartbeat_seconds: float = Field(default=5, gt=0, allow_inf_nan=False)
    lease_seconds: float = Field(default=6, ge=0.3, le=3600)
    first_token_timeout_seconds: float = Field(default=30, gt=0, allow_inf_nan=False)
    token_timeout_seconds: float = Field(default=30, gt=0, allow_inf_nan=False)
    turn_timeout_seconds: float = Field(default=120, gt=0, allow_inf_nan=False)
    max_turns: int = Field(default=500, ge=1)
    pool_size: int = Field(default=10, ge=2)
    drain_seconds: float = Field(default=5, ge=0, allow_inf_nan=False)
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
        field = str(problem["loc"][0])
        name = field if field.isupper() else PREFIX + field.upper()
        got = "" if name in SECRET else f" (got {problem['input']!r})"
        lines.append(f"{name}: {problem['msg']}{got}")
    return "\n".join(lines)


def unknown(environment: dict[str, str]) -> list[str]:
    """PULSELINE_ names that are no settings: most likely misspelt."""
    known = {PREFIX + field.upper() for field in Settings.model_fields}
    return sorted(name for name in environment if name.startswith(PREFIX) and name not in known)
