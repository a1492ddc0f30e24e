#!/usr/bin/env bash
# Builds build/initramfs/initramfs.cpio: arca-init (profile `guest`, static musl) as /init.
#
#   initramfs/build.sh           build what changed
#   initramfs/build.sh --check   pack twice and compare: same input, same bytes
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"
cd "$ARCA_ROOT"

TARGET=x86_64-unknown-linux-musl
OUT=$ARCA_BUILD/initramfs/initramfs.cpio

main() {
  cargo --version >/dev/null 2>&1 || fail "cargo lacks: run 'make setup'"
  local target_dir init t0=$SECONDS
  # Panic messages hold paths of the sources: without this, the folder one builds in changes the bytes.
  export CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_RUSTFLAGS="--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo --remap-path-prefix=$ARCA_ROOT=/arca"
  say "initramfs: arca-init for $TARGET"
  cargo build --profile guest -p guest-init --target "$TARGET"
  cargo build -p initramfs
  target_dir=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
  init=$target_dir/$TARGET/guest/arca-init
  # A stub of the crate that names no binary yields one called like the crate.
  [[ -f $init ]] || init=$target_dir/$TARGET/guest/guest-init
  [[ -f $init ]] || fail "crate guest-init built no binary arca-init"
  mkdir -p "$(dirname "$OUT")"
  pack "$target_dir" "$init" "$OUT"
  if [[ ${1:-} == --check ]]; then
    pack "$target_dir" "$init" "$OUT.again"
    cmp "$OUT" "$OUT.again" || fail "two packings of one program differ"
    rm -f "$OUT.again"
  fi
  install_file "$OUT" "$ARCA_CURRENT/initramfs.cpio"
  say "initramfs: $(stat -c %s "$init") bytes arca-init, $(stat -c %s "$OUT") bytes build/initramfs/initramfs.cpio, $((SECONDS - t0)) s"
}

pack() { "$1/debug/initramfs" "$2" "$3"; }

main "$@"
