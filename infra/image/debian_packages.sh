#!/bin/sh
# debian_packages.sh IMAGE BIN: prints a bill of materials (CycloneDX) of the image's Debian packages, from its own list of
# them. BIN is where debsbom lies.
set -eu
held=$(podman create --no-healthcheck "$1")
said=$(mktemp)
trap 'podman rm "$held" >/dev/null; rm -f "$said"' EXIT
podman export "$held" | "$2/debsbom" generate --sbom-type cdx --root - --out - 2>"$said" || {
  cat "$said" >&2
  exit 1
}
