"""infra/prove.sh writes down what failed: its steps are stood in for, in a repository of their own."""

import os
import subprocess
from pathlib import Path

import pytest

PROVE = Path(__file__).parents[2] / "infra" / "prove.sh"
STEPS = ["image", "tests", "pgbouncer", "faults", "load"]
BUILD = r"""printf '345 bytes, 3 layers\n0 B\tUSER x\n9 MB\tRUN "$x" | y\n'"""
PYTEST = """\
case "$*" in
  *tests/image*)
    echo 'tests/image/test_image.py::test_it[an image] PASSED [ 50%]'
    echo 'image: 345 MB'
    [ -z "$SKIPS" ] || echo 'SKIPPED [1] tests/conftest.py:1: no one | nothing'
    echo "=== 1 passed${SKIPS:+, 1 skipped} in 0.01s ===" ;;
  *)
    [ -z "$FAILS" ] || echo 'FAILED tests/integration/test_log.py::test_law - AssertionError: a | b'
    echo "=== ${FAILS:+1 failed, }2 passed in 0.01s ==="
    [ -z "$FAILS" ] ;;
esac"""
MAKE = """echo "$* $MAKEFLAGS"; [ "$1 $2" != "--no-print-directory $LOSES" ]"""


def _prove(root: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    for place, script in (
        ("infra/prove.sh", PROVE.read_text().removeprefix("#!/bin/sh\n")),
        ("infra/image/build.sh", BUILD),
        (".venv/bin/pytest", PYTEST),
        ("bin/make", MAKE),
    ):
        file = root / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
    (root / "docs").mkdir()
    git = ["git", "-C", str(root), "-c", "user.name=x", "-c", "user.email=x@x.invalid"]
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "x"]):
        subprocess.run([*git, *command], check=True)
    variables = {**os.environ, "PROVE_UNDER_LOAD": "1", "MAKEFLAGS": "-j2", **environment}
    variables["PATH"] = f"{root / 'bin'}:{os.environ['PATH']}"
    command = [str(root / "infra" / "prove.sh")]
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=False)


def test_the_page_has_every_step_with_what_it_found(tmp_path: Path) -> None:
    done = _prove(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    page = (tmp_path / "docs" / "proof.md").read_text()
    assert [name for name in STEPS if f"\n| {name} | passed, " in page] == STEPS
    assert "FAILED" not in page
    assert "\n| image | 345 MB |\n" in page
    assert '\n| 9 MB | `RUN "$x" \\| y` |\n' in page
    assert "\n| integration tests through PgBouncer | 2 passed in 0.01s |\n" in page
    assert "\n| `tests/image/test_image.py::test_it[an image]` | passed |\n" in page
    assert "-j2" not in page, "what it makes takes no place of the make that runs it"


@pytest.mark.parametrize(
    ("variable", "value", "step", "line"),
    [
        ("FAILS", "1", "pgbouncer", "`tests/integration/test_log.py::test_law` | FAILED"),
        ("SKIPS", "1", "tests", "`[1] tests/conftest.py:1: no one \\| nothing` | SKIPPED"),
        ("LOSES", "load", "load", "load | FAILED"),
    ],
)
def test_a_step_that_fails_or_skips_is_in_the_page_and_the_others_go_on(
    variable: str, value: str, step: str, line: str, tmp_path: Path
) -> None:
    done = _prove(tmp_path, **{variable: value})
    assert (done.returncode, done.stderr) == (1, f"Not proven: {step}. docs/proof.md says how far it came.\n")
    page = (tmp_path / "docs" / "proof.md").read_text()
    assert line in page
    assert [name for name in STEPS if f"\n| {name} | FAILED, " in page] == [step]
    assert [name for name in STEPS if f"\n| {name} | passed, " in page] == [name for name in STEPS if name != step]
