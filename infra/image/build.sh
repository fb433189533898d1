#!/bin/sh
# Builds the image as TAG (default localhost/pulseline:dev) without a Docker daemon, from a Debian base that is made
# here of Debian's packages; then prints its size and layers. Needs root; what is missing it installs with apt. The exit
# status is 3 where it cannot be tried at all, 1 where it was tried and failed.
# A certificate authority of this machine's own is lent to the build and does not come into the image.
set -eu
cd "$(dirname "$0")/../.."
TAG=${1:-localhost/pulseline:dev}
BASE=docker.io/library/debian:trixie-slim
CERTIFICATES=/etc/ssl/certs/ca-certificates.crt

fail() { echo "The image was not built: $1" >&2; exit "${2:-1}"; }

[ "$(id -u)" = 0 ] || fail "run this as root, or build with Docker: docker build -t $TAG ." 3
missing() { for tool in buildah podman runc debootstrap; do command -v "$tool" >/dev/null || return 0; done; return 1; }
if missing; then
  command -v apt-get >/dev/null || fail "this is no Debian, and its tools are not here" 3
  timeout 300 apt-get -qq update || fail "apt-get update does not work" 3
  DEBIAN_FRONTEND=noninteractive timeout 600 apt-get -qq install --yes --no-install-recommends \
    buildah podman runc debootstrap fuse-overlayfs >/dev/null || fail "its tools cannot be installed" 3
fi

if ! buildah inspect --type image "$BASE" >/dev/null 2>&1; then
  root=$(mktemp -d)
  trap 'rm -rf "$root"' EXIT
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | head -n 1)
  # With ca-certificates: its installation could not replace the file that is lent to the build.
  timeout 600 debootstrap --variant=minbase --include=ca-certificates trixie "$root" ${mirror:+"$mirror"} >"$root.log" 2>&1 \
    || { tail -n 5 "$root.log" >&2; fail "debootstrap does not work"; }
  rm -rf "$root.log" "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/* \
    "$root"/usr/share/doc/* "$root"/usr/share/man/* "$root"/usr/share/locale/* "$root"/usr/share/info/*
  tar -C "$root" -c . | podman import --quiet - "$BASE" >/dev/null || fail "the base cannot be imported"
fi

timeout 1200 buildah bud --isolation chroot --jobs 2 --pull-never --format docker --quiet \
  --volume "$CERTIFICATES:$CERTIFICATES:ro" --tag "$TAG" \
  --build-arg "REVISION=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)" . >/dev/null || fail "see above"

podman image inspect --format '{{.Size}} bytes, {{len .RootFS.Layers}} layers' "$TAG"
podman history --format '{{.Size}}	{{.CreatedBy}}' "$TAG" | cut -c1-110
