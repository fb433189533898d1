from pathlib import Path

import pytest
from pydantic import ValidationError

from functions.settings import Settings, describe, unknown


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
    ],
)
def test_a_wrong_value_is_refused_with_the_settings_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError) as refused:
        Settings()
    assert describe(refused.value).startswith(f"{name}: ")


def test_a_secret_is_never_repeated_in_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULSELINE_SECRET_KEY", "tooshort")
    with pytest.raises(ValidationError) as refused:
        Settings()
    assert "tooshort" not in describe(refused.value)


def test_a_misspelt_setting_is_named() -> None:
    assert unknown({"PULSELINE_MODLE": "x", "PULSELINE_MODEL": "y", "PATH": "z"}) == ["PULSELINE_MODLE"]
