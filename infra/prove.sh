#!/bin/sh
# Builds the image; runs every test that needs it, those of Lambda and of the templates, the integration tests through
# PgBouncer, the long fault campaign and the load; and writes docs/proof.md with what they measured. Fails, and leaves
# docs/proof.md as it was, when anything fails or is skipped. For root, on Debian.
#
# What it proves is a commit, on a machine that does nothing else. PROVE_UNDER_LOAD=1 measures on a busy one too, and says so.
set -eu
cd "$(dirname "$0")/.."
TAG=localhost/pulseline:proof
LOAD_MAX=1.5
said=$(mktemp -d)
trap 'rm -rf "$said"' EXIT

fail() { echo "Nothing was proven: $1" >&2; exit 1; }

changed=$(git status --porcelain -- . ':!docs/proof.md')
[ -z "$changed" ] || fail "commit these first:
$changed"
load=$(cut -d' ' -f1 /proc/loadavg)
busy=$(awk -v load="$load" -v most="$LOAD_MAX" 'BEGIN { print (load > most) }')
[ "$busy" = 0 ] || [ -n "${PROVE_UNDER_LOAD:-}" ] || fail "the load is $load, more than $LOAD_MAX; PROVE_UNDER_LOAD=1 goes on"

# step NAME COMMAND…: what it says is shown and kept.
step() {
  name=$1
  shift
  echo "== $name"
  "$@" >"$said/$name" 2>&1 || { cat "$said/$name"; fail "$name"; }
  cat "$said/$name"
}

tested() {
  step "$@"
  ! tail -n 1 "$said/$1" | grep -q skipped || fail "some tests were skipped: $1"
}

TESTS=".venv/bin/pytest -p no:cacheprovider -v --durations=0 --durations-min=1"
began=$(date +%s)
step image infra/image/build.sh "$TAG"
built=$(($(date +%s) - began))
tested tests env TEST_IMAGE="$TAG" $TESTS \
  tests/image tests/infra tests/integration/test_aws.py tests/e2e/test_lambda.py
tested pgbouncer env TEST_PGBOUNCER=1 $TESTS -n 2 tests/integration
step faults make --no-print-directory faults FAULTS="${FAULTS:-}"
step load make --no-print-directory load LOAD="${LOAD:-}"

{
  echo "# Proof"
  echo
  echo "Written by \`make prove\`, which builds the image and runs what stands below."
  echo
  echo "| | |"
  echo "|---|---|"
  echo "| commit | $(git rev-parse --short HEAD) |"
  echo "| when | $(date -u '+%Y-%m-%d %H:%M UTC') |"
  echo "| machine | $(nproc) processors, load $load at the start$([ "$busy" = 0 ] || echo ', more than it should be') |"
  echo "| image built in | $built s |"
  sed -nE 's/^([0-9]+) bytes, (.*)$/| image | \1 bytes, \2 |/p' "$said/image"
  grep -hE '^(image|Lambda)[^:]*: ' "$said/tests" | sed -E 's/^([^:]*): (.*)$/| \1 | \2 |/'
  echo
  echo "| layer | made by |"
  echo "|---|---|"
  grep -E '^[0-9.]+ [kMG]?B	' "$said/image" | grep -v '^0 B' | sed -E 's/\|/\\|/g; s/^([^	]*)	(.*)$/| \1 | `\2` |/'
  for name in faults load; do
    echo
    echo "\`make $name\`:"
    echo
    echo '```'
    tail -n 60 "$said/$name"
    echo '```'
  done
  for name in tests pgbouncer; do
    echo
    echo "| test$([ $name = tests ] || echo ', through PgBouncer') | |"
    echo "|---|---|"
    grep -oE 'PASSED tests/[^ ]+|^tests/[^ ]+::.* PASSED' "$said/$name" |
      sed -E 's/^PASSED (.*)$/\1/; s/ PASSED$//; s/^(.*)$/| `\1` | passed |/' | sort -u
  done
} >"$said/proof.md"
mv "$said/proof.md" docs/proof.md
