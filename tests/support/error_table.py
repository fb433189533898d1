"""Makes docs/errors.md from the table in functions/errors.py: `python -m tests.support.error_table`."""

from pathlib import Path

from functions.errors import ERRORS, Known

PAGE = Path(__file__).parents[2] / "docs" / "errors.md"
HEAD = """# Errors

Made from `functions/errors.py` by `python -m tests.support.error_table`; a test holds it to that.

Every error has a stable `code` and a sentence for a person. Nothing of what a provider said, and no stack trace,
reaches a client. The log names an error's type, its status and where it was raised, but not its text: that may quote a
message.
"""
TURNS = """
## A turn fails

The turn ends with an `error` event: `code`, `message`, `retryable`, and in `content` the text so far, which is kept in
the conversation and in the next turn's context. Only the blocking `POST /chat` answers with the status.

A provider that is busy or away is asked again, at most twice and only before its first token: after the `Retry-After`
that it names (when that is at most 10 s), else after 0.25 s and 0.75 s.
"""
REQUESTS = """
## A request is refused

`application/problem+json` (RFC 9457) with `code` and `detail`; 429 and 503 carry `Retry-After`. A `POST /chat/stream`
whose answer did not come may be sent again with the same `request_id`: it is the same turn.
"""
COLUMNS = (
    "\n| code | status | try again | what a person reads | what the page does |\n| --- | --- | --- | --- | --- |\n"
)


def page() -> str:
    turns = {code: known for code, known in ERRORS.items() if known.event}
    requests = {code: known for code, known in ERRORS.items() if not known.event}
    return HEAD + TURNS + COLUMNS + _rows(turns) + REQUESTS + COLUMNS + _rows(requests)


def _rows(rows: dict[str, Known]) -> str:
    return "".join(
        f"| `{code}` | {known.status} | {'yes' if known.retryable else 'no'} | {known.message} | {known.page} |\n"
        for code, known in rows.items()
    )


if __name__ == "__main__":
    PAGE.write_text(page())
