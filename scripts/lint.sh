#!/usr/bin/env bash
# `make lint`: formatting, clippy with no warning left, licences and advisories (deny.toml), shell scripts.
# docs/quality.md says which lints there are and why.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ARCA_ROOT"

t0=$SECONDS
"$ARCA_ROOT/scripts/setup.sh" lint
timed "cargo fmt" cargo fmt --all --check
timed "cargo clippy" cargo clippy --quiet --workspace --all-targets -- -D warnings
timed "shellcheck" shellcheck -x scripts/*.sh kernel/*.sh initramfs/*.sh .ci/run

deny() { "$ARCA_TOOLS/bin/cargo-deny" --workspace "$@"; }
timed "cargo deny: licences, bans, sources" deny check --hide-inclusion-graph licenses bans sources
# The RustSec database comes from GitHub. Where that cannot be reached everything else still counts, but it is said.
if deny fetch db; then
  timed "cargo deny: advisories" deny check --disable-fetch advisories
elif compgen -G "${CARGO_HOME:-$HOME/.cargo}/advisory-dbs/*/crates" >/dev/null; then
  say "WARNING: the RustSec database cannot be reached; advisories are checked against an old copy"
  timed "cargo deny: advisories (old copy)" deny check --disable-fetch advisories
else
  say "WARNING: the RustSec database cannot be reached: ADVISORIES ARE NOT CHECKED"
fi
say "lint: $((SECONDS - t0)) s"
