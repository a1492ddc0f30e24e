#!/usr/bin/env bash
# `make lint`: formatting, clippy with no warning left, licences and advisories (deny.toml), shell scripts.
# docs/quality.md says which lints there are and why.
#
#   scripts/lint.sh          all of it; installs what lacks (cargo-deny: some minutes of building, once)
#   scripts/lint.sh quick    what continuous integration runs: nothing is installed, what lacks is left out and named
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ARCA_ROOT"

t0=$SECONDS
quick=${1:-}
"$ARCA_ROOT/scripts/setup.sh" "$([[ $quick ]] && echo rust || echo lint)"
timed "cargo fmt" cargo fmt --all --check
timed "cargo clippy" cargo clippy --quiet --workspace --all-targets -- -D warnings
timed "list of unsafe code" scripts/unsafe.sh --check

lacks() {
  command -v "$1" >/dev/null 2>&1 && return 1
  [[ $quick ]] || fail "$1 lacks"
  say "$1 is not installed: left out"
}
lacks shellcheck || timed "shellcheck" shellcheck -x scripts/*.sh kernel/*.sh initramfs/*.sh .ci/run

export PATH=$PATH:$ARCA_TOOLS/bin
if lacks cargo-deny; then
  say "lint: $((SECONDS - t0)) s"
  exit 0
fi
deny() { cargo-deny --workspace "$@"; }
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
