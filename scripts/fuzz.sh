#!/usr/bin/env bash
# `make fuzz [TIME=60] [TARGET="a b"]`: coverage-guided fuzzing, TIME seconds for each target, one after the other.
#
# libFuzzer on the stable compiler: the coverage counters are LLVM's own pass, asked for by flags; overflow checks and debug
# assertions are on. AddressSanitizer would need nightly, and finds little in code that is safe Rust nearly everywhere. What
# was learned stays in build/fuzz/corpus and is where the next run starts; findings are in build/fuzz/findings.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ARCA_ROOT"

time=${1:-60}
shift || true
dir=$ARCA_BUILD/fuzz
"$ARCA_ROOT/scripts/setup.sh" fuzz

# A target folder of its own: with other flags everything is built anew (some minutes the first time).
export CARGO_TARGET_DIR=${ARCA_FUZZ_TARGET_DIR:-$dir/target}
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_PANIC=abort CARGO_PROFILE_RELEASE_DEBUG=line-tables-only
export CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS=true
export CARGO_PROFILE_RELEASE_OPT_LEVEL=2 CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
coverage=(-Cpasses=sancov-module --cfg fuzzing)
for option in level=4 inline-8bit-counters pc-table trace-compares; do
  coverage+=("-Cllvm-args=-sanitizer-coverage-$option")
done
# With --target, build scripts and procedural macros are built without the flags.
host=$(rustc --print host-tuple)
RUSTFLAGS="${coverage[*]}" timed "cargo build (with coverage counters)" \
  cargo build --quiet --release --target "$host" -p fuzz --features libfuzzer --bin libfuzzer
fuzzer=$CARGO_TARGET_DIR/$host/release/libfuzzer

targets=("$@")
((${#targets[@]} > 0)) || mapfile -t targets < <("$fuzzer")
scratch=$(mktemp -d -p "$([[ -w /dev/shm ]] && echo /dev/shm || echo /tmp)" arca-fuzz.XXXXXX)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$dir/findings"
# Rust's own main does this for every program of ours; libFuzzer has another.
trap '' PIPE
failed=()
for target in "${targets[@]}"; do
  corpus=$dir/corpus/$target log=$dir/$target.log
  mkdir -p "$corpus" "$scratch/$target"
  if ARCA_FUZZ_TARGET=$target ARCA_FUZZ_SCRATCH=$scratch/$target ARCA_FUZZ_CORPUS=$corpus "$fuzzer" "$corpus" \
    -max_total_time="$time" -max_len=65536 -timeout=10 -rss_limit_mb=1024 -malloc_limit_mb=512 -use_value_profile=1 \
    -artifact_prefix="$dir/findings/$target-" -print_final_stats=1 >"$log" 2>&1 </dev/null; then
    state=ok
  else
    state="FOUND, see $log"
    failed+=("$target")
  fi
  # The last line of progress: "#N DONE cov: C ft: F corp: ..."
  printf '%-16s %-40s %s\n' "$target" "$(grep -oE '^#[0-9]+.*cov: [0-9]+ ft: [0-9]+' "$log" | tail -1 |
    sed -E 's/^#([0-9]+).*cov: ([0-9]+) ft: ([0-9]+)/\1 runs, \2 edges, \3 features/')" "$state"
done
((${#failed[@]} == 0)) || fail "fuzzing found something: ${failed[*]}; replay: cargo run -p fuzz -- run TARGET FILE"
