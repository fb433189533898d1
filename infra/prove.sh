#!/bin/sh
# Builds the image, runs every test that needs it and those of Lambda, and writes docs/proof.md with what they measured.
# Fails, and leaves docs/proof.md as it was, when anything fails. For root, on Debian.
set -eu
cd "$(dirname "$0")/.."
TAG=localhost/pulseline:proof
said=$(mktemp -d)
trap 'rm -rf "$said"' EXIT

began=$(date +%s)
infra/image/build.sh "$TAG" >"$said/image"
built=$(($(date +%s) - began))
cat "$said/image"

PULSELINE_TEST_IMAGE=$TAG .venv/bin/pytest -p no:cacheprovider -v --durations=0 --durations-min=1 \
  tests/image tests/infra tests/integration/test_aws.py tests/e2e/test_lambda.py >"$said/tests" 2>&1 || {
  cat "$said/tests"
  exit 1
}
cat "$said/tests"

{
  echo "# Proof"
  echo
  echo "Written by \`make prove\`, which builds the image and runs the tests below. The times are of whatever else the machine"
  echo "did, too."
  echo
  echo "| | |"
  echo "|---|---|"
  echo "| commit | $(git rev-parse --short HEAD)$(git diff --quiet HEAD || echo ', with changes') |"
  echo "| when | $(date -u '+%Y-%m-%d %H:%M UTC') |"
  echo "| machine | $(nproc) processors, load $(cut -d' ' -f1 /proc/loadavg) at the end |"
  echo "| image built in | $built s |"
  echo "| image | $(head -n 1 "$said/image") |"
  grep -E '^(image|Lambda)[^:]*: ' "$said/tests" | sed -E 's/^([^:]*): (.*)$/| \1 | \2 |/'
  echo
  echo "| layer | made by |"
  echo "|---|---|"
  tail -n +2 "$said/image" | grep -v '^0 B' | sed -E 's/\|/\\|/g; s/^([^\t]*)\t(.*)$/| \1 | `\2` |/'
  echo
  echo "| test | |"
  echo "|---|---|"
  grep -oE '^tests/[^ ]+::.* PASSED' "$said/tests" | sed -E 's/^(.*) PASSED$/| `\1` | passed |/'
} >"$said/proof.md"
mv "$said/proof.md" docs/proof.md
