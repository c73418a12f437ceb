#!/usr/bin/env bash
# Puts back what apply.sh changed, and forgets it. Usage: revert.sh [--dry-run]
case ${1:-} in -h | --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" && exit ;; esac
set -euo pipefail
# shellcheck source=tuning/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

dry_run=no
case "${1-}" in
"") ;;
--dry-run) dry_run=yes ;;
*) die "usage: revert.sh [--dry-run]" ;;
esac
if [[ ! -s $STATE_FILE ]]; then
    echo "Nothing to undo: $STATE_FILE is not there."
    exit 0
fi
[[ $dry_run == yes ]] || needs_root

revert() {
    local key=$2 old=$3
    printf '%-34s %s -> %s\n' "$key" "$(current "$key")" "$old"
    [[ $dry_run == yes ]] || printf '%s\n' "$old" >"$(path_of "$key")" || die "$key was refused; $STATE_FILE is kept"
}
for_each_setting "$STATE_FILE" revert

if [[ $dry_run == no ]]; then
    rm -f "$STATE_FILE" "$INSTALLED"
    echo "Reverted."
fi
