#!/bin/sh
# Makes the passwords and the addresses with them, once, into secrets/, and an empty file for each provider's key. The
# folder is closed to others; the files are not, because a container reads them as another user.
set -eu
cd "$(dirname "$0")"
mkdir -p secrets
chmod 700 secrets
cd secrets
random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
put() { [ -e "$1" ] || printf %s "$2" >"$1"; chmod 644 "$1"; }
for name in postgres owner app; do put "${name}_password" "$(random)"; done
put owner_url "postgresql://pulseline_owner:$(cat owner_password)@postgres:5432/pulseline"
put app_url "postgresql://pulseline_app:$(cat app_password)@postgres:5432/pulseline"
put pgbouncer_url "postgresql://pulseline_app:$(cat app_password)@pgbouncer:5432/pulseline"
put pgbouncer_users "\"pulseline_app\" \"$(cat app_password)\""
for name in openai anthropic; do put "${name}_api_key" ""; done
