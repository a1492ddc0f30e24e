# shellcheck shell=bash disable=SC2034 # its variables are used by who sources it
# Shared by the set-up and build scripts: where things live, and how progress is told.
# Sourced with bash; `set -euo pipefail` is the caller's.

ARCA_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# One cache per user, shared by all checkouts: what costs minutes is made once.
ARCA_CACHE=${ARCA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/arca}
# Where the daemon finds what was built last. Its order, for each of them:
#   bzImage, initramfs.cpio   config.json (kernelPath, initramfsPath), then ARCA_HOME, then this folder
# ARCA_CACHE does not move it: the daemon is started from anywhere and does not know that variable.
ARCA_CURRENT=${XDG_CACHE_HOME:-$HOME/.cache}/arca/current
# Programs that set-up builds or unpacks (cargo-deny, the docker CLI).
ARCA_TOOLS=$ARCA_CACHE/tools
ARCA_BUILD=$ARCA_ROOT/build

say() { printf '==> %s\n' "$*" >&2; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

# timed "what" command...: says what runs and how many seconds it took.
timed() {
  local what=$1 t0=$SECONDS
  shift
  say "$what ..."
  "$@" || fail "$what failed after $((SECONDS - t0)) s"
  say "$what: done in $((SECONDS - t0)) s"
}

# watched "what" LOG command...: like timed, for minutes of work: output goes to LOG, a line every
# 30 s says how far it is, and the end of LOG is shown when it fails.
watched() {
  local what=$1 log=$2 t0=$SECONDS pid rc=0 next
  shift 2
  say "$what (log: $log)"
  "$@" >"$log" 2>&1 </dev/null &
  pid=$!
  # Background commands of a script ignore ^C: hand it on.
  trap 'kill "$pid" 2>/dev/null; exit 130' INT TERM
  next=$((SECONDS + 30))
  while kill -0 "$pid" 2>/dev/null; do
    sleep 1
    if ((SECONDS >= next)); then
      say "$what: $((SECONDS - t0)) s, $(wc -l <"$log") lines of output so far"
      next=$((SECONDS + 30))
    fi
  done
  wait "$pid" || rc=$?
  trap - INT TERM
  if ((rc != 0)); then
    tail -n 40 "$log" >&2
    fail "$what failed after $((SECONDS - t0)) s; the whole output is in $log"
  fi
  say "$what: done in $((SECONDS - t0)) s"
}

# install_file FROM TO: replaces TO at once, so that a VM that starts meanwhile sees the old or the
# new file, never half of one. Nothing is written when the bytes are the same.
install_file() {
  local from=$1 to=$2
  mkdir -p "$(dirname "$to")"
  cmp -s "$from" "$to" && return 0
  cp "$from" "$to.new.$$"
  mv -f "$to.new.$$" "$to"
}
