"""Built again from the same sources, on the same base and with the same Debian packages (which no lock holds), the
image holds the same files. Times of change are left out: they are the build's."""

import hashlib
import os
import stat
import subprocess
from pathlib import Path
from uuid import uuid4

import pytest

from tests.conftest import Say

IMAGE = os.environ["TEST_IMAGE"]
BUILD = Path(__file__).parents[2] / "infra" / "image" / "build.sh"


@pytest.mark.timeout(600)
def test_built_again_it_holds_the_same_files(say: Say) -> None:
    again = f"localhost/pulseline:again-{uuid4().hex[:8]}"
    try:
        _said([str(BUILD), again], BUILDAH_LAYERS="false")  # nothing comes from a cache
        first, second = _files(IMAGE), _files(again)
    finally:
        subprocess.run(["podman", "image", "rm", "--force", again], capture_output=True, timeout=60, check=False)
    differs = sorted(path for path in first.keys() | second.keys() if first.get(path) != second.get(path))
    assert not differs, f"{len(differs)} files differ: {differs[:20]}"
    lines = "".join(f"{path!r} {first[path]}\n" for path in sorted(first))
    say(f"image: built twice, the same {len(first)} files, sha256 {hashlib.sha256(lines.encode()).hexdigest()}")


def _said(command: list[str], **environment: str) -> str:
    variables = os.environ | environment
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=540, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _files(image: str) -> dict[str, str]:
    """Of each path type and mode, owner, and the content's hash or the link's target."""
    root = Path(_said(["podman", "image", "mount", image]))
    try:
        return {str(path.relative_to(root)): _file(path) for path in root.rglob("*")}
    finally:
        _said(["podman", "image", "unmount", image])


def _file(path: Path) -> str:
    status = path.lstat()
    content = ""
    if stat.S_ISLNK(status.st_mode):
        content = str(path.readlink())
    elif stat.S_ISREG(status.st_mode):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
    return f"{status.st_mode:o} {status.st_uid}:{status.st_gid} {content}"
