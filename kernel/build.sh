#!/usr/bin/env bash
# Builds the kernel of all VMs: Debian's linux-source with kernel/arca-x86_64.config over allnoconfig.
#
#   kernel/build.sh          build unless the cache has it; result in build/kernel/{bzImage,config}
#   kernel/build.sh --key    print the cache key only
#
# ARCA_CACHE        cache folder (default: XDG_CACHE_HOME or ~/.cache, + /arca)
# ARCA_KERNEL_WORK  keep source and objects there, for work on the configuration
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"

PACKAGE=linux-source-6.1
FRAGMENT=$ARCA_ROOT/kernel/arca-x86_64.config
TARBALL=/usr/src/$PACKAGE.tar.xz

# Everything kbuild writes into the image by default differs from run to run; these are fixed.
export KBUILD_BUILD_TIMESTAMP='1970-01-01 00:00:00 UTC' KBUILD_BUILD_USER=arca KBUILD_BUILD_HOST=arca
export KBUILD_BUILD_VERSION=1 LC_ALL=C TZ=UTC
unset KCONFIG_CONFIG KCONFIG_ALLCONFIG CROSS_COMPILE MAKEFLAGS MFLAGS MAKELEVEL || true

# Fails and lists every fragment line that the configuration does not honour: a typo or a missing
# dependency would otherwise only show as a feature that lacks at run time.
verify_config() {
  local config=$1 line symbol bad=()
  while IFS= read -r line; do
    symbol=${line%%=*}
    case $line in
      CONFIG_*=n) ! grep -q "^$symbol=" "$config" || bad+=("$line (is $(grep "^$symbol=" "$config"))") ;;
      CONFIG_*) grep -qxF -- "$line" "$config" || bad+=("$line (is $(grep -w -- "$symbol" "$config" || echo unknown))") ;;
    esac
  done <"$FRAGMENT"
  ((${#bad[@]} == 0)) && return 0
  printf 'did not take effect: %s\n' "${bad[@]}" >&2
  fail "${#bad[@]} lines of $FRAGMENT did not take effect: mend names or dependencies"
}

package_version() { dpkg-query -W -f='${Version}' "$PACKAGE" 2>/dev/null || true; }

main() {
  [[ $(uname -m) == x86_64 ]] || fail "the kernel recipe is for x86_64 so far; this is $(uname -m)"
  local version key entry
  if [[ -z $(package_version) || ! -f $TARBALL ]]; then
    "$ARCA_ROOT/scripts/setup.sh" kernel
  fi
  version=$(package_version)
  [[ -n $version && -f $TARBALL ]] || fail "package $PACKAGE is not installed: run 'make setup' as root"
  key=$( (echo "$version"; grep '^CONFIG_' "$FRAGMENT"; cat "${BASH_SOURCE[0]}") | sha256sum | cut -c1-32)
  if [[ ${1:-} == --key ]]; then echo "$key"; return; fi

  entry=$ARCA_CACHE/kernel/$key
  mkdir -p "$ARCA_CACHE/kernel"
  exec 9>"$ARCA_CACHE/kernel/lock"
  flock -n 9 || { say "kernel: another build runs, waiting for it"; flock 9; }
  if [[ ! -f $entry/bzImage ]]; then
    "$ARCA_ROOT/scripts/setup.sh" kernel
    build "$version" "$entry"
  fi
  install_file "$entry/bzImage" "$ARCA_BUILD/kernel/bzImage"
  install_file "$entry/config" "$ARCA_BUILD/kernel/config"
  install_file "$entry/bzImage" "$ARCA_CURRENT/bzImage"
  say "kernel: $PACKAGE $version, $(stat -c %s "$entry/bzImage") bytes, build/kernel/bzImage"
}

build() {
  local version=$1 entry=$2 work src out
  work=${ARCA_KERNEL_WORK:-$(mktemp -d "$ARCA_CACHE/kernel/work.XXXXXX")}
  # shellcheck disable=SC2064 # the path of now
  [[ -n ${ARCA_KERNEL_WORK:-} ]] || trap "rm -rf '$work'" EXIT
  src=$work/$PACKAGE
  out=$work/obj
  mkdir -p "$out"
  if [[ $(cat "$work/version" 2>/dev/null) != "$version" ]]; then
    rm -rf "$src"
    timed "kernel: unpacking $PACKAGE $version (about 30 s)" tar -xJf "$TARBALL" -C "$work"
    echo "$version" >"$work/version"
  fi
  # The source's own merge_config.sh with -n would do the same, but only warns about lost lines.
  timed "kernel: configuring" make -s -C "$src" O="$out" ARCH=x86_64 KCONFIG_ALLCONFIG="$FRAGMENT" allnoconfig 9>&-
  verify_config "$out/.config"
  watched "kernel: compiling with $(nproc) jobs (about 5 min on 2 idle cores, 1600 objects)" "$ARCA_CACHE/kernel/build.log" \
    make -C "$src" O="$out" ARCH=x86_64 -j"$(nproc)" bzImage 9>&-
  rm -rf "$entry.new"
  mkdir -p "$entry.new"
  cp "$out/arch/x86/boot/bzImage" "$entry.new/bzImage"
  cp "$out/.config" "$entry.new/config"
  rm -rf "$entry"
  mv "$entry.new" "$entry"
}

main "$@"
