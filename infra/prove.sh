#!/bin/sh
# Builds the image; runs every test that needs it, those of Lambda and of the templates, the integration tests through
# PgBouncer, the long fault campaign and the load; and writes docs/proof.md with what they measured. What fails, or skips
# a test, is called FAILED there, and the exit status is 1. For root, on Debian. On two cores it takes about 36 minutes:
# the image 2, its tests, which build it again, and Lambda's 6, PgBouncer 10, the faults 5, the load 14.
#
# What it proves is a commit, on a machine that does nothing else: it waits until that has come to rest.
# PROVE_UNDER_LOAD=1 measures on a busy one too, and says so.
set -eu
cd "$(dirname "$0")/.."
TAG=localhost/pulseline:proof
LOAD_MAX=1.5
CALM_SECONDS=300
unset MAKEFLAGS MFLAGS # of the make that runs this: those below are none of its jobs
said=$(mktemp -d)
trap 'rm -rf "$said"' EXIT

fail() { echo "Nothing was proven: $1" >&2; exit 1; }

changed=$(git status --porcelain -- . ':!docs/proof.md')
[ -z "$changed" ] || fail "commit these first:
$changed"
busy() {
  load=$(cut -d' ' -f1 /proc/loadavg)
  [ "$(awk -v load="$load" -v most="$LOAD_MAX" 'BEGIN { print (load > most) }')" = 1 ]
}
late=$(($(date +%s) + CALM_SECONDS))
while busy && [ -z "${PROVE_UNDER_LOAD:-}" ]; do
  [ "$(date +%s)" -lt "$late" ] || fail "the load is $load, more than $LOAD_MAX; PROVE_UNDER_LOAD=1 goes on"
  sleep 5
done

# step NAME COMMAND…: what it says is shown and kept.
failed=
step() {
  name=$1
  shift
  echo "== $name, at $(date '+%H:%M:%S')"
  began=$(date +%s) verdict=passed
  "$@" >"$said/$name" 2>&1 || verdict=FAILED
  cat "$said/$name"
  ! tail -n 1 "$said/$name" | grep -qE '[0-9] (skipped|failed)' || verdict=FAILED
  [ $verdict = passed ] || failed="$failed $name"
  echo "| $name | $verdict, $(($(date +%s) - began)) s |" >>"$said/verdicts"
}

TESTS=".venv/bin/pytest -p no:cacheprovider -v --durations=20 --durations-min=1"
step image infra/image/build.sh "$TAG"
[ -z "$failed" ] || fail "there is no image"
step tests env TEST_IMAGE="$TAG" TEST_REBUILD=1 $TESTS \
  tests/image tests/infra tests/integration/test_aws.py tests/e2e/test_lambda.py
step pgbouncer env TEST_PGBOUNCER=1 $TESTS -n 3 tests/integration
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
  echo "| machine | $(nproc) processors, load $load at the start$([ -z "${PROVE_UNDER_LOAD:-}" ] || echo ', not waited for') |"
  cat "$said/verdicts"
  sed -nE 's/^([0-9]+) bytes, (.*)$/| image | \1 bytes, \2 |/p' "$said/image"
  grep -hE '^(image|Lambda)[^:]*: ' "$said/tests" | sed -E 's/^([^:]*): (.*)$/| \1 | \2 |/'
  echo "| integration tests through PgBouncer | $(tail -n 1 "$said/pgbouncer" | sed -E 's/^=+ | =+$//g') |"
  echo
  echo "| layer | made by |"
  echo "|---|---|"
  grep -E '^[0-9.]+ [kMG]?B	' "$said/image" | grep -v '^0 B' | sed -E 's/\|/\\|/g; s/^([^	]*)	(.*)$/| \1 | `\2` |/'
  for name in faults load; do
    echo
    echo "\`make $name\`:"
    echo
    echo '```'
    cat "$said/$name"
    echo '```'
  done
  echo
  echo "| test | |"
  echo "|---|---|"
  grep -hE '^(FAILED|ERROR|SKIPPED) ' "$said/tests" "$said/pgbouncer" |
    sed -E 's/ - .*//; s/\|/\\|/g; s/^([A-Z]+) (.*)$/| `\2` | \1 |/'
  sed -nE 's/^(tests\/.*) PASSED.*$/| `\1` | passed |/p' "$said/tests"
} >"$said/proof.md"
mv "$said/proof.md" docs/proof.md
[ -z "$failed" ] || { echo "Not proven:$failed. docs/proof.md says how far it came." >&2; exit 1; }
