"""Makes docs/licences.md from the locks and what the packages say of themselves: `python -m tests.support.licences`."""

import json
import re
from importlib.metadata import PackageMetadata, PackageNotFoundError, metadata
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "licences.md"
PINNED = re.compile(r"^([\w.-]+)==([^\s;\\]+)", re.MULTILINE)
KNOWN = {"Apache Software License": "Apache-2.0", "BSD License": "BSD", "MIT License": "MIT"}
TEXT_MAX_CHARACTERS = 60  # what is longer is the licence itself
HEAD = """# Licences of what Pulseline is made with

Made from `requirements/image.txt` and `frontend/package-lock.json` by `python -m tests.support.licences`; a test holds
it to that. Tools for tests and building are not part of the image or the page, and not listed.

"""


def python_packages() -> dict[str, str]:
    """Each pinned package with its licence; of one that is not for this platform, nothing."""
    found = {}
    for name, version in PINNED.findall((ROOT / "requirements" / "image.txt").read_text()):
        try:
            found[f"{name} {version}"] = _licence(metadata(name))
        except PackageNotFoundError:
            continue
    return found


def _licence(about: PackageMetadata) -> str:
    said = str((about.get_all("License-Expression") or [""])[0]).strip() or _classified(
        about.get_all("Classifier") or []
    )
    text = str((about.get_all("License") or [""])[0]).strip()
    return said or (text if 0 < len(text) < TEXT_MAX_CHARACTERS and "\n" not in text else "see its files")


def _classified(classifiers: list[str]) -> str:
    names = [line.rsplit(" :: ", 1)[-1] for line in classifiers if line.startswith("License :: ")]
    return ", ".join(KNOWN.get(name, name) for name in names)


def page_packages() -> dict[str, str]:
    packages = json.loads((ROOT / "frontend" / "package-lock.json").read_text())["packages"]
    return {
        f"{path.rpartition('node_modules/')[2]} {package['version']}": package.get("license", "see its files")
        for path, package in packages.items()
        if path and not package.get("dev") and not package.get("optional")
    }


def page() -> str:
    return HEAD + "## Python\n\n" + _table(python_packages()) + "\n## The page\n\n" + _table(page_packages())


def _table(packages: dict[str, str]) -> str:
    rows = "".join(f"| {name} | {licence} |\n" for name, licence in sorted(packages.items()))
    return "| package | licence |\n| --- | --- |\n" + rows


if __name__ == "__main__":
    PAGE.write_text(page())
