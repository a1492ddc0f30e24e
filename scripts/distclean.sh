#!/usr/bin/env bash
# Removes what the builds keep in the cache folder. Daemon homes (run/) hold containers and stay.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
rm -rf "$ARCA_CACHE/kernel" "$ARCA_TOOLS" "$ARCA_CURRENT"
