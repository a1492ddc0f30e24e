#!/usr/bin/env bash
# `make lint`: formatting, clippy with no warning left, licences and advisories (deny.toml).
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ARCA_ROOT"

"$ARCA_ROOT/scripts/setup.sh" lint
timed "cargo fmt" cargo fmt --all --check
timed "cargo clippy" cargo clippy --workspace --all-targets -- -D warnings
deny=$ARCA_TOOLS/bin/cargo-deny
timed "cargo deny" "$deny" --workspace check
if command -v shellcheck >/dev/null 2>&1; then
  timed "shellcheck" shellcheck -x scripts/*.sh kernel/*.sh initramfs/*.sh .ci/run
fi
