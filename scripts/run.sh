#!/usr/bin/env bash
# `make run`: builds, starts a daemon of its own (ARCA_HOME below the cache folder), loads a small
# image made here, and ends with the output of a container. The daemon stays; `make stop` ends it.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# Not below build/: unix socket paths are short (108 bytes) and checkouts may lie deep.
export ARCA_HOME=${ARCA_HOME:-$ARCA_CACHE/run}
ARCA=$ARCA_ROOT/target/release/arca
IMAGE=arca/hello:latest

stop() {
  [[ -x $ARCA && -d $ARCA_HOME ]] || return 0
  "$ARCA" daemon stop
}

start() {
  "$ARCA_ROOT/scripts/setup.sh" run
  "$ARCA_ROOT/scripts/build.sh"
  "$ARCA_ROOT/scripts/hello-image.sh" "$ARCA_BUILD/hello.tar" "$IMAGE"
  mkdir -p "$ARCA_HOME"
  # One that runs from an earlier `make run` has the earlier build in it.
  stop >/dev/null 2>&1 || true
  timed "daemon: starting with ARCA_HOME=$ARCA_HOME" "$ARCA" daemon start
  PATH=$PATH:$ARCA_TOOLS/docker-cli/usr/bin
  export DOCKER_HOST=unix://$ARCA_HOME/arca.sock
  timed "docker load: $IMAGE" docker load --quiet --input "$ARCA_BUILD/hello.tar"
  say "to go on: export DOCKER_HOST=$DOCKER_HOST PATH=\$PATH:$ARCA_TOOLS/docker-cli/usr/bin"
  say "docker run --rm $IMAGE uname -a"
  docker run --rm "$IMAGE" uname -a
}

case ${1:-start} in
  start) start ;;
  stop) stop ;;
  *) fail "usage: run.sh [start|stop]" ;;
esac
