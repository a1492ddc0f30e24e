#!/usr/bin/env bash
# Makes all the daemon needs: kernel, initramfs (both also in the cache's
# `current` folder, where every daemon of this user finds them) and target/release/arca.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ARCA_ROOT"

"$ARCA_ROOT/scripts/setup.sh" build
"$ARCA_ROOT/kernel/build.sh"
"$ARCA_ROOT/initramfs/build.sh"
timed "arca: the host's program (first time: several minutes)" cargo build --release -p host-shim
