import os
from pathlib import Path
from typing import get_args

import pytest
from pydantic import ValidationError

from functions.cli import _settings
from functions.settings import Settings, describe, unknown
from graph.red_flags import regions


def test_the_defaults_need_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    settings = Settings()
    assert (settings.database_url, settings.model, settings.home) == (None, "extractive", Path(".pulseline"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PULSELINE_LEASE_SECONDS", "soon"),
        ("PULSELINE_NOTIFY", "maybe"),
        ("PULSELINE_MAX_TURNS", "0"),
        ("PULSELINE_SECRET_KEY", "short"),
        ("DATABASE_URL", "mysql://localhost/x"),
        ("PULSELINE_TRUSTED_PROXIES", "10.0.0.0/8, the-proxy"),
        ("PULSELINE_CORS_ORIGINS", "https://*.example.org"),
        ("PULSELINE_CORS_ORIGINS", "https://app.example.org/"),
        ("PULSELINE_JWT_ISSUER", "accounts.example.org"),
        ("PULSELINE_JWT_SECRET", "too-short-to-sign-with"),
    ],
)
def test_a_wrong_value_is_refused_with_the_settings_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError) as refused:
        Settings()
    assert describe(refused.value).startswith(f"{name}: ")


@pytest.mark.parametrize("name", ["PULSELINE_SECRET_KEY", "PULSELINE_JWT_SECRET"])
def test_a_secret_is_never_repeated_in_a_refusal(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "tooshort")
    with pytest.raises(ValidationError) as refused:
        Settings()
    assert "tooshort" not in describe(refused.value)


def test_the_regions_are_those_that_have_numbers() -> None:
    assert get_args(Settings.model_fields["region"].annotation) == regions()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EMBEDDINGS", "openai"),
        ("EMBEDDINGS", "best"),
        ("RERANKER", "best"),
        ("RERANKER", "http://"),
        ("REGION", "mars"),
    ],
)
def test_a_wrong_part_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"PULSELINE_{name}", value)
    with pytest.raises(ValidationError) as refused:
        Settings()
    assert f"PULSELINE_{name}: " in describe(refused.value)


def test_a_misspelt_setting_is_named() -> None:
    assert unknown({"PULSELINE_MODLE": "x", "PULSELINE_MODEL": "y", "PATH": "z"}) == ["PULSELINE_MODLE"]


def test_tokens_must_be_for_somebody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULSELINE_JWT_ISSUER", "https://accounts.example.org")
    with pytest.raises(ValidationError) as refused:
        Settings()
    assert describe(refused.value).startswith("PULSELINE_JWT_AUDIENCE: ")
    monkeypatch.setenv("PULSELINE_JWT_AUDIENCE", "pulseline")
    assert Settings().jwt_audience == "pulseline"


def test_a_providers_key_may_come_as_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The environment wins, as with settings; Compose's file is empty until a key is put there."""
    monkeypatch.setattr("functions.settings.SECRETS", tmp_path)
    monkeypatch.setattr(os, "environ", {"ANTHROPIC_API_KEY": "of the environment"})
    for name, text in {"OPENAI": "of a file\n", "ANTHROPIC": "of a file", "MISTRAL": ""}.items():
        (tmp_path / f"{name}_API_KEY").write_text(text)
    _settings()
    assert os.environ == {"OPENAI_API_KEY": "of a file", "ANTHROPIC_API_KEY": "of the environment"}


def test_lists_are_written_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULSELINE_TRUSTED_PROXIES", "10.0.0.0/8, ::1")
    monkeypatch.setenv("PULSELINE_CORS_ORIGINS", "https://a.example.org,http://localhost:3000")
    settings = Settings()
    assert (settings.proxies, settings.origins) == (
        ["10.0.0.0/8", "::1"],
        ["https://a.example.org", "http://localhost:3000"],
    )
