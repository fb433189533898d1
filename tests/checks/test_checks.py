"""The static checks, the page's tests and its size budget, as cases beside the others: one command runs everything."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent

CHECKS = {
    "lint": [f"{BIN}/ruff", "check"],
    "format": [f"{BIN}/ruff", "format", "--check"],
    "types": [f"{BIN}/mypy"],
    "packages fit together": [sys.executable, "-m", "pip", "check"],
    "direction of imports": [f"{BIN}/lint-imports"],
    "page: generated types": ["npm", "--prefix", "frontend", "run", "--silent", "types:check"],
    "page: lint and types": ["npm", "--prefix", "frontend", "run", "--silent", "lint"],
    "page: tests": ["npm", "--prefix", "frontend", "test", "--silent"],
    "page: size": ["npm", "--prefix", "frontend", "run", "--silent", "size"],
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", CHECKS)
def test_check(name: str) -> None:
    check = subprocess.run(
        CHECKS[name],
        cwd=ROOT,
        env={**os.environ, "PYTHON": sys.executable},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if check.returncode != 0:
        pytest.fail(f"{' '.join(CHECKS[name])}\n{check.stdout}", pytrace=False)
