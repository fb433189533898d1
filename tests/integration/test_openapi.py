"""The OpenAPI document says what the API does: no 5xx, and every response that comes is documented."""

from collections.abc import Callable
from pathlib import Path

import pytest

from functions.app import create_app
from functions.errors import ERRORS
from functions.settings import Settings
from tests.support.openapi_attack import MODEL, SETTINGS, attack
from tests.support.server import serving

EXAMPLES = 6


def test_every_refusal_is_a_problem_in_the_document() -> None:
    document = create_app(Settings(), "postgresql://nowhere").openapi()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            for status, response in operation["responses"].items():
                if status >= "400" and path not in ("/readyz", "/metrics"):
                    assert list(response["content"]) == ["application/problem+json"], (method, path, status)
    assert "HTTPValidationError" not in str(document["paths"])


def test_whatever_a_blocking_answer_may_say_is_in_the_document() -> None:
    document = create_app(Settings(), "postgresql://nowhere").openapi()
    never = ERRORS["method_not_allowed"].status  # of this very method
    said = {str(known.status) for known in ERRORS.values() if known.status != never}
    assert set(document["paths"]["/chat"]["post"]["responses"]) >= said


@pytest.mark.timeout(300)
def test_no_case_that_schemathesis_makes_breaks_a_promise_of_the_document(
    database_url: str, tmp_path: Path, say: Callable[[str], None]
) -> None:
    with serving(database_url, tmp_path, MODEL, **SETTINGS) as server:
        attacked = attack(server, EXAMPLES, tmp_path)
        said = server.output
    say(f"schemathesis: {attacked.cases} cases on {attacked.operations} operations, stateful ones too")
    if not attacked.passed:
        pytest.fail(attacked.said[-8000:], pytrace=False)
    assert attacked.cases >= 100
    assert "unexpected error" not in said
