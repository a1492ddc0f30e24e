#!/usr/bin/env bash
# The table of unsafe code in docs/quality.md, made from the sources: blocks, functions and impls, and SAFETY comments.
#
#   scripts/unsafe.sh            prints it
#   scripts/unsafe.sh --check    fails when docs/quality.md has another one
#   scripts/unsafe.sh --write    puts it there
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ARCA_ROOT"
page=docs/quality.md

table() {
  local file code safety total=0
  echo "| file | unsafe | SAFETY |"
  echo "|---|---|---|"
  while read -r file; do
    # Comments and the names of lints do not count.
    code=$(sed 's,//.*,,' "$file" | grep -oE '\bunsafe( \{| fn| impl| extern)' | wc -l || true)
    ((code > 0)) || continue
    safety=$(grep -c 'SAFETY:' "$file" || true)
    total=$((total + code))
    echo "| $file | $code | $safety |"
  done < <(git ls-files '*.rs' | sort)
  echo "| all | $total | |"
}

# The page with the table between its two marks.
page_with_table() {
  awk -v table="$(table)" '
    /<!-- unsafe: begin/ { print; print table; skip = 1 }
    /<!-- unsafe: end/ { skip = 0 }
    !skip' "$page"
}

case ${1:-} in
  "") table ;;
  --check) page_with_table | cmp -s - "$page" || fail "$page has an old list of unsafe code: scripts/unsafe.sh --write" ;;
  --write)
    page_with_table >"$page.new"
    mv "$page.new" "$page"
    ;;
  *) fail "unknown option $1" ;;
esac
