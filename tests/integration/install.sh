#!/bin/sh
# Installs what the integration tests need and pip cannot: PostgreSQL with PostGIS, Slurm, munge and
# Chromium through apt, Azurite through npm. What is there already is left alone; tests of what cannot
# be installed are skipped, each with a reason.
#
# Usage: tests/integration/install.sh VENV    (`make test-integration` calls it)
set -eu

VENV=${1:?usage: $0 VENV}
AZURITE=3.37.0
export DEBIAN_FRONTEND=noninteractive

missing=
for package in postgresql-postgis slurm-wlm munge chromium; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed ||
        missing="$missing $package"
done

if [ -n "$missing" ]; then
    as_root=
    [ "$(id -u)" -eq 0 ] || as_root='sudo -n'
    # shellcheck disable=SC2086
    { $as_root apt-get update -q && $as_root apt-get install -qy --no-install-recommends $missing; } ||
        echo "cannot install$missing: run 'sudo apt-get install$missing'" >&2
fi

if [ ! -x "$VENV/node/node_modules/.bin/azurite-blob" ] && ! command -v azurite-blob >/dev/null; then
    npm install --prefix "$VENV/node" --no-fund --no-audit --loglevel error "azurite@$AZURITE" ||
        echo "cannot install azurite: is npm there?" >&2
fi
