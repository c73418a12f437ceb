#!/usr/bin/env bash
# Sets what 99-ringverb.conf wants and the host lacks, now and for the next boot. Shows old -> new; run again, it
# changes nothing. The values found the first time are kept for revert.sh.
# Usage: apply.sh [--dry-run]
case ${1:-} in -h | --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" && exit ;; esac
set -euo pipefail
# shellcheck source=tuning/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

dry_run=no
case "${1-}" in
"") ;;
--dry-run) dry_run=yes ;;
*) die "usage: apply.sh [--dry-run]" ;;
esac
[[ $dry_run == yes ]] || needs_root "  (or look first: $0 --dry-run)"

changes=0
apply() {
    local need=$1 key=$2 want=$3 now
    now=$(current "$key")
    if [[ -z $now ]]; then
        [[ $need == optional ]] || die "this kernel or container has no $key; nothing after it was changed"
        printf '%-34s absent, left alone\n' "$key"
    elif suffices "$now" "$want"; then
        printf '%-34s %s, left alone\n' "$key" "$now"
    else
        changes=$((changes + 1))
        printf '%-34s %s -> %s\n' "$key" "$now" "$want"
        [[ $dry_run == no ]] || return 0
        # The old value is saved before anything changes, and only once: a second run must not save ours as theirs.
        mkdir -p "$(dirname "$STATE_FILE")" "$(dirname "$INSTALLED")"
        touch "$STATE_FILE" "$INSTALLED"
        grep -q "^$key = " "$STATE_FILE" || echo "$key = $now" >>"$STATE_FILE"
        printf '%s\n' "$want" >"$(path_of "$key")" || die "$key was refused; revert.sh undoes what was changed"
        sed -i "/^$key = /d" "$INSTALLED"
        echo "$key = $want" >>"$INSTALLED"
    fi
}
for_each_setting "$CONF" apply

if [[ $dry_run == yes ]]; then
    echo "$changes settings would change; nothing was touched."
elif ((changes == 0)); then
    echo "Nothing to change."
else
    echo "$changes settings changed, for the next boot too ($INSTALLED). Old values: $STATE_FILE. Undo: revert.sh"
fi
