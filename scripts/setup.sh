#!/usr/bin/env bash
# Installs what a part of the build needs and the machine lacks. Asks nothing, changes nothing twice.
#
#   scripts/setup.sh [kernel|build|run|test|lint|fuzz]...     (default: run test)
#
# Debian packages are installed when root; otherwise the exact command is printed. Programs that no
# package has (cargo-deny, an unpacked docker CLI) go to the cache folder.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

DENY_VERSION=0.20.2
MUSL=x86_64-unknown-linux-musl

# package[:command], a command on PATH stands for its package.
KERNEL_PACKAGES=(linux-source-6.1 gcc libc6-dev make:make flex:flex bison:bison bc:bc xz-utils:xz lz4:lz4 libelf-dev libssl-dev)
BUILD_PACKAGES=(gcc libc6-dev ca-certificates)
RUN_PACKAGES=(e2fsprogs:mke2fs busybox-static)
TEST_PACKAGES=(skopeo:skopeo mmdebstrap:mmdebstrap docker-registry:docker-registry procps:pgrep e2fsprogs:mke2fs)
LINT_PACKAGES=(shellcheck:shellcheck)
# libFuzzer is C++.
FUZZ_PACKAGES=(g++:c++)
QEMU_PACKAGE=qemu-system-x86

has() { command -v "$1" >/dev/null 2>&1; }
installed() { [[ $(dpkg-query -W -f='${db:Status-Abbrev}' "$1" 2>/dev/null) == ii* ]]; }
is_debian() { has apt-get && has dpkg-query; }

apt_updated=
apt_install() {
  export DEBIAN_FRONTEND=noninteractive
  if [[ -z $apt_updated ]]; then
    timed "apt: reading the package lists" apt-get update -qq
    apt_updated=yes
  fi
  watched "apt: installing $*" "$(mktemp -t arca-apt.XXXXXX.log)" \
    apt-get install -y -q --no-install-recommends "$@"
}

# packages SPEC...: installs those that lack, or says how to.
packages() {
  local spec package command missing=()
  for spec in "$@"; do
    package=${spec%%:*} command=${spec#*:}
    [[ $command != "$spec" ]] && has "$command" && continue
    if is_debian; then installed "$package" && continue; fi
    missing+=("$package")
  done
  ((${#missing[@]} == 0)) && return 0
  is_debian || fail "install these (Debian's names): ${missing[*]}"
  if ((EUID != 0)); then
    fail "packages lack; as root run:
    apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
  fi
  apt_install "${missing[@]}"
}

# Prints the stanza lines "URIs" and "Signed-By" that the machine itself uses for Debian's release $1.
debian_source() {
  local release=$1 file
  for file in /etc/apt/sources.list.d/*.sources; do
    [[ -f $file ]] || continue
    awk -v RS= -v release="$release" '
      {
        uri = key = trusted = ""; found = 0; n = split($0, line, "\n")
        for (i = 1; i <= n; i++) {
          count = split(line[i], word, /[ \t]+/)
          if (word[1] == "Suites:") for (j = 2; j <= count; j++) if (word[j] == release) found = 1
          if (word[1] == "URIs:") uri = word[2]
          if (word[1] == "Signed-By:") key = word[2]
          if (word[1] == "Trusted:") trusted = word[2]
        }
        if (found && uri != "" && $0 !~ /(^|\n)Enabled:[ \t]*no/) {
          print "URIs: " uri; if (key != "") print "Signed-By: " key; if (trusted != "") print "Trusted: " trusted; exit
        }
      }' "$file"
  done
  # Either may be missing.
  { cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null || true; } | awk -v release="$release" '
    $1 == "deb" {
      key = trusted = ""
      sub(/^deb[ \t]+/, "")
      if (match($0, /^\[[^]]*\][ \t]*/)) {
        options = substr($0, 1, RLENGTH); $0 = substr($0, RLENGTH + 1)
        if (match(options, /signed-by=[^] \t]+/)) key = substr(options, RSTART + 10, RLENGTH - 10)
        if (options ~ /trusted=yes/) trusted = "yes"
      }
      if ($2 == release) {
        print "URIs: " $1; if (key != "") print "Signed-By: " key; if (trusted != "") print "Trusted: " trusted; exit
      }
    }'
}

# QEMU 10 from backports where the machine's own apt sources can give it; the release's 7.2 works too.
qemu() {
  has qemu-system-x86_64 && return 0
  local codename source list=/etc/apt/sources.list.d/arca-backports.sources
  if ((EUID == 0)) && is_debian; then
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    # A source may have been found in several files: the first four lines are one stanza.
    source=$(debian_source "$codename" | awk '/^URIs:/ && seen++ { exit } { print }')
    if [[ $codename == bookworm && -n $source ]]; then
      if ! grep -rqs "$codename-backports" /etc/apt/sources.list /etc/apt/sources.list.d; then
        printf 'Types: deb\n%s\nSuites: %s-backports\nComponents: main\n' "$source" "$codename" >"$list"
        if ! timed_try "apt: reading the lists of $codename-backports" apt-get update -qq; then
          say "apt: $codename-backports cannot be read; QEMU comes from the release"
          rm -f "$list"
        fi
      fi
      if apt-cache policy "$QEMU_PACKAGE" | grep -q "$codename-backports"; then
        apt_install -t "$codename-backports" "$QEMU_PACKAGE"
        return 0
      fi
    fi
  fi
  packages "$QEMU_PACKAGE:qemu-system-x86_64"
}

timed_try() {
  say "$1 ..."
  shift
  "$@"
}

rust() {
  if ! has cargo && [[ -x ${CARGO_HOME:-$HOME/.cargo}/bin/cargo ]]; then
    fail "cargo is not on PATH: run '. \"${CARGO_HOME:-$HOME/.cargo}/env\"' first"
  fi
  has rustup || fail "rustup lacks; see https://rustup.rs, or run:
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal"
  cargo --version >/dev/null 2>&1 || timed "rustup: installing the stable toolchain" rustup toolchain install stable --profile minimal
  local component
  for component in rustfmt clippy; do
    cargo "${component/rustfmt/fmt}" --version >/dev/null 2>&1 || timed "rustup: adding $component" rustup component add "$component"
  done
  [[ -d $(rustc --print target-libdir --target "$MUSL") ]] || timed "rustup: adding $MUSL" rustup target add "$MUSL"
}

# cargo_tool NAME VERSION MINUTES: a published crate's program, into the cache folder.
cargo_tool() {
  local name=$1 version=$2 about=$3
  [[ $(cat "$ARCA_TOOLS/$name.version" 2>/dev/null) == "$version" && -x $ARCA_TOOLS/bin/$name ]] && return 0
  mkdir -p "$ARCA_TOOLS"
  watched "cargo: installing $name $version (about $about min)" "$ARCA_TOOLS/$name.log" \
    env CARGO_TARGET_DIR="$ARCA_TOOLS/target" \
    cargo install "$name" --version "$version" --locked --force --root "$ARCA_TOOLS"
  rm -rf "$ARCA_TOOLS/target"
  echo "$version" >"$ARCA_TOOLS/$name.version"
}

# The docker CLI out of Debian's package, without installing the daemon that comes with it.
docker_cli() {
  has docker && return 0
  [[ -x $ARCA_TOOLS/docker-cli/usr/bin/docker ]] && return 0
  if ! { has apt-get && has dpkg; }; then fail "install a docker CLI; Arca speaks Docker's API but brings no CLI"; fi
  local package=docker.io dir
  # A name that other packages only mention has no candidate.
  apt-cache policy docker-cli | grep -q 'Candidate: [0-9]' && package=docker-cli
  if ! apt-cache policy "$package" | grep -q 'Candidate: [0-9]' && ((EUID == 0)); then
    timed "apt: reading the package lists" apt-get update -qq
  fi
  dir=$(mktemp -d)
  ( cd "$dir" && timed "apt: fetching the docker CLI (package $package)" apt-get download -qq "$package" )
  rm -rf "$ARCA_TOOLS/docker-cli.new" "$ARCA_TOOLS/docker-cli"
  mkdir -p "$ARCA_TOOLS/docker-cli.new"
  dpkg -x "$dir"/*.deb "$ARCA_TOOLS/docker-cli.new"
  # Only the CLI is wanted: the package's dockerd is large and would never be used.
  find "$ARCA_TOOLS/docker-cli.new" -type f ! -path '*/bin/docker' ! -path '*/doc/*copyright' -delete
  mv "$ARCA_TOOLS/docker-cli.new" "$ARCA_TOOLS/docker-cli"
  rm -rf "$dir"
}

main() {
  local t0=$SECONDS part
  ((EUID == 0)) && umask 022
  (($# > 0)) || set -- run test
  for part in "$@"; do
    case $part in
      kernel) packages "${KERNEL_PACKAGES[@]}" ;;
      build) packages "${KERNEL_PACKAGES[@]}" "${BUILD_PACKAGES[@]}"; rust ;;
      rust) packages "${BUILD_PACKAGES[@]}"; rust ;;
      run) main build; packages "${RUN_PACKAGES[@]}"; qemu; docker_cli ;;
      test) main run; packages "${TEST_PACKAGES[@]}" ;;
      lint) main rust; packages "${LINT_PACKAGES[@]}"; cargo_tool cargo-deny "$DENY_VERSION" 6 ;;
      fuzz) main rust; packages "${FUZZ_PACKAGES[@]}" ;;
      *) fail "unknown part '$part': kernel, build, rust, run, test, lint or fuzz" ;;
    esac
  done
  ((SECONDS - t0 < 2)) || say "set-up ($*): $((SECONDS - t0)) s"
}

main "$@"
