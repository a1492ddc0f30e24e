#!/usr/bin/env bash
# `make test`: set-up, build, then all tests of the workspace, end-to-end ones included.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ARCA_ROOT"

t0=$SECONDS
"$ARCA_ROOT/scripts/setup.sh" test
"$ARCA_ROOT/scripts/build.sh"
"$ARCA_ROOT/initramfs/build.sh" --check
export PATH=$PATH:$ARCA_TOOLS/docker-cli/usr/bin:/usr/sbin:/sbin
timed "images of the tests (first time: some minutes)" cargo run --quiet --release -p tests --bin test-images
say "cargo test --workspace"
cargo test --workspace "$@"
# Built by the tests above; `cargo run -p fuzz` would choose other features and build much of it again.
timed "fuzz targets (ARCA_FUZZ_SECONDS in all: ${ARCA_FUZZ_SECONDS:-60})" "${CARGO_TARGET_DIR:-target}/debug/fuzz" short
say "runner: tests with real VMs of its own"
tar -xOf "$ARCA_CACHE/test-images/busybox.docker.tar" 0/layer.tar >"$ARCA_BUILD/busybox.tar"
cargo run --quiet -p diskimg --example tar2erofs -- "$ARCA_BUILD/busybox.tar" "$ARCA_BUILD/busybox.erofs"
ARCA_TEST_ROOTFS=$ARCA_BUILD/busybox.erofs ARCA_TEST_BOOTS=${ARCA_TEST_BOOTS:-5} \
  cargo test --workspace -- --ignored --test-threads=1
say "all tests passed in $((SECONDS - t0)) s"
