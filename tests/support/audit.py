"""Asks the registries for known holes in what is locked: `python -m tests.support.audit`. Where their data cannot be
reached it says so, and never that all is well."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements" / "image.txt"
AUDIT_SECONDS = 600


def of_pip_audit(report: str) -> tuple[list[str], int]:
    """What was found, and how many packages it could not ask about."""
    packages = json.loads(report)["dependencies"]
    found = [f"{p['name']} {p['version']}: {hole['id']}" for p in packages for hole in p.get("vulns", [])]
    return found, sum("skip_reason" in package for package in packages)


def of_npm(report: str) -> tuple[list[str], bool]:
    """What was found, and whether npm could ask."""
    said = json.loads(report or "{}")
    if "vulnerabilities" not in said:
        return [], False
    return [f"{name}: {hole['severity']}" for name, hole in said["vulnerabilities"].items()], True


def _run(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=AUDIT_SECONDS).stdout


def main() -> int:
    tool = str(Path(sys.executable).parent / "pip-audit")
    report = _run(tool, "--disable-pip", "--no-deps", "--require-hashes", "-r", str(LOCK), "-f", "json")
    found, unasked = of_pip_audit(report) if report else ([], -1)
    if unasked:
        print(
            f"NOT AUDITED: {'all' if unasked < 0 else unasked} Python packages: their data cannot be reached from here"
        )
    more, asked = of_npm(_run("npm", "--prefix", "frontend", "audit", "--omit=dev", "--json"))
    if not asked:
        print("NOT AUDITED: the page's packages: their data cannot be reached from here")
    for hole in [*found, *more]:
        print(hole)
    if unasked or not asked:
        return 2
    print("nothing known" if not found + more else f"{len(found + more)} known holes")
    return 1 if found + more else 0


if __name__ == "__main__":
    sys.exit(main())
