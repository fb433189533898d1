#!/bin/sh
# For the Postgres image: makes the roles with the passwords of the secrets when the volume is new.
set -eu
psql -v ON_ERROR_STOP=1 -U "${POSTGRES_USER:-postgres}" -d "$POSTGRES_DB" \
  -v owner_password="$(cat /run/secrets/owner_password)" -v app_password="$(cat /run/secrets/app_password)" \
  -f /docker-entrypoint-initdb.d/roles.psql
