"""What Pulseline is made with: pinned by hash, with licences that are listed, and a bill of materials."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.audit import of_npm, of_pip_audit
from tests.support.licences import PAGE, PINNED, ROOT, page, page_packages, python_packages

LOCKS = ["runtime", "image", "local", "dev", "build", "node", "pip", "peers/langgraph-dev", "peers/aegra"]
NOT_FOR_US = re.compile(r"\b(?:AGPL|GPL)\b|(?<!Lesser )General Public", re.IGNORECASE)


def test_the_list_of_licences_is_that_of_the_locks() -> None:
    listed = set(PAGE.read_text().splitlines())
    missing = [line for line in page().splitlines() if line not in listed]
    assert not missing, "run: python -m tests.support.licences"
    pinned = {f"{name} {version}" for name, version in PINNED.findall((ROOT / "requirements/image.txt").read_text())}
    rows = {line.split(" | ")[0].removeprefix("| ") for line in listed if line.startswith("| ")}
    assert rows - {"package", "---"} <= pinned | set(page_packages()), "a package that is no more: run the same"


def test_no_licence_forbids_what_ours_allows() -> None:
    for name, licence in {**python_packages(), **page_packages()}.items():
        assert not NOT_FOR_US.search(licence), f"{name}: {licence}"


@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_of_a_lock_has_a_hash_and_no_address(lock: str) -> None:
    text = (ROOT / "requirements" / f"{lock}.txt").read_text()
    pins = re.split(r"(?m)^(?=[\w.-]+==)", text)[1:]
    assert pins
    for pin in pins:
        assert "--hash=sha256:" in pin, pin.splitlines()[0]
    assert "://" not in text


def test_the_bills_of_materials_name_every_package_of_the_image_and_of_the_page(tmp_path: Path) -> None:
    """What `make sbom` writes, with the tools that the tests run with."""
    command = [
        "make",
        "-s",
        "sbom",
        "-o",
        ".venv/.installed-dev",
        f"SBOM={tmp_path}",
        f"BIN={Path(sys.executable).parent}",
    ]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    image, of_page = _named(tmp_path / "image.json"), _named(tmp_path / "page.json")
    assert image == {" ".join(pin) for pin in PINNED.findall((ROOT / "requirements/image.txt").read_text())}
    assert of_page >= set(page_packages())


def _named(bill: Path) -> set[str]:
    found = json.loads(bill.read_text())
    assert found["bomFormat"] == "CycloneDX"
    scopes = [f"{component['group']}/" if component.get("group") else "" for component in found["components"]]
    return {f"{s}{c['name']} {c['version']}" for s, c in zip(scopes, found["components"], strict=True)}


def test_an_audit_that_could_not_ask_is_no_clean_one() -> None:
    skipped = {"name": "click", "skip_reason": "not found"}
    holed = {"name": "x", "version": "1", "vulns": [{"id": "PYSEC-1"}]}
    assert of_pip_audit(json.dumps({"dependencies": [skipped, holed]})) == (["x 1: PYSEC-1"], 1)
    assert of_npm('{"message": "405 Method Not Allowed"}') == ([], False)
    assert of_npm("") == ([], False)
    assert of_npm('{"vulnerabilities": {"y": {"severity": "high"}}}') == (["y: high"], True)
