#!/usr/bin/env bash
# Makes a small image offline: Debian's static busybox as a docker-archive. Same busybox, same bytes.
#
#   scripts/hello-image.sh OUT.tar [NAME:TAG]
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

out=${1:?usage: hello-image.sh OUT.tar [NAME:TAG]}
name=${2:-arca/hello:latest}
# /bin/busybox is the static one only when package busybox-static is installed; dynamic ones would
# miss their libraries in the image.
busybox=$(command -v busybox) || fail "busybox lacks: install package busybox-static"
! ldd "$busybox" >/dev/null 2>&1 || fail "$busybox is not static: install package busybox-static"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
umask 022
root=$work/root
mkdir -p "$root"/{bin,dev,etc,home,proc,root,run,sys,tmp,usr/bin,usr/sbin,sbin,var}
chmod 1777 "$root/tmp"
chmod 700 "$root/root"
cp "$busybox" "$root/bin/busybox"
"$busybox" --list | while read -r applet; do
  [[ $applet == busybox ]] || ln -s busybox "$root/bin/$applet"
done
printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' >"$root/etc/passwd"
printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"

# deterministic_tar FOLDER OUT: names without "./", as other builders write them.
deterministic_tar() {
  (cd "$1" && tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --format=gnu -cf "$2" -- *)
}
sha() { sha256sum "$1" | cut -d' ' -f1; }

mkdir "$work/image"
deterministic_tar "$root" "$work/layer.tar"
layer=$(sha "$work/layer.tar")
mkdir "$work/image/$layer"
mv "$work/layer.tar" "$work/image/$layer/layer.tar"
cat >"$work/config.json" <<JSON
{"architecture":"amd64","os":"linux","created":"1970-01-01T00:00:00Z","config":{"Env":["PATH=/bin:/sbin:/usr/bin:/usr/sbin"],"Cmd":["sh"]},"rootfs":{"type":"layers","diff_ids":["sha256:$layer"]},"history":[{"created":"1970-01-01T00:00:00Z","created_by":"busybox-static"}]}
JSON
config=$(sha "$work/config.json")
mv "$work/config.json" "$work/image/$config.json"
printf '[{"Config":"%s.json","RepoTags":["%s"],"Layers":["%s/layer.tar"]}]\n' "$config" "$name" "$layer" >"$work/image/manifest.json"
mkdir -p "$(dirname "$out")"
deterministic_tar "$work/image" "$work/out.tar"
install_file "$work/out.tar" "$out"
say "image: $name in $out, $(stat -c %s "$out") bytes"
