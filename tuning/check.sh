#!/usr/bin/env bash
# Is this host ready for that many connections? Reads only, needs no root. Ends with 1 if anything fails.
# Usage: check.sh [--connections N]   (default 100000)
set -euo pipefail
# shellcheck source=tuning/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

connections=100000
if [[ ${1-} == --connections && ${2-} =~ ^[1-9][0-9]*$ && $# == 2 ]]; then
    connections=$2
elif (($# > 0)); then
    die "usage: check.sh [--connections N]"
fi

failures=0
line() {
    printf '%-4s  %-34s %-26s %s\n' "$@"
}
verdict() {
    local good=$1 name=$2 now=$3 want=$4
    if [[ $good == yes ]]; then
        line pass "$name" "$now" "$want"
    else
        failures=$((failures + 1))
        line FAIL "$name" "$now" "$want"
    fi
}
yes_if() { if "$@"; then echo yes; else echo no; fi; }

line "" setting now wanted
kernel=$(uname -r)
verdict "$(yes_if test "$(printf '5.19\n%s\n' "$kernel" | sort -V | head -n 1)" = 5.19)" kernel "$kernel" "5.19 or newer"
io_uring=$(current kernel.io_uring_disabled)
verdict "$(yes_if test "${io_uring:-0}" = 0)" kernel.io_uring_disabled "${io_uring:-absent}" "0"

# The limit of the running server if there is one, or else of this shell. The server raises the soft limit by itself.
descriptors=$(ulimit -Hn)
whose="this shell"
for limits in /proc/[0-9]*/limits; do
    if [[ $(cat "${limits%limits}comm" 2>/dev/null) == ringverb ]]; then
        descriptors=$(awk '/^Max open files/ { print $5 }' "$limits" 2>/dev/null || true)
        whose="process $(basename "$(dirname "$limits")")"
    fi
done
needed=$((connections + 1000))
enough=no
if [[ $descriptors == unlimited ]] || suffices "${descriptors:-0}" "$needed"; then enough=yes; fi
verdict "$enough" "descriptors of $whose" "${descriptors:-unknown}" "$needed or more"

# The rings of a worker lock 120 KiB; a take-over needs them twice. Root has no limit.
workers=$(nproc)
needed=$((2 * 120 * workers))
locked=$(ulimit -Hl)
enough=no
if [[ $locked == unlimited ]] || suffices "$locked" "$needed"; then enough=yes; fi
verdict "$enough" "locked memory of this shell (KiB)" "$locked" "$needed or more for $workers workers"

while read -r key want; do
    optional=no
    if [[ $key == -* ]]; then
        optional=yes
        key=${key#-}
    fi
    now=$(current "$key")
    shown=$want
    [[ $want == *" "* ]] || shown="$want or more"
    if [[ -z $now && $optional == yes ]]; then
        line skip "$key" absent "$shown"
    else
        verdict "$(yes_if suffices "$now" "$want")" "$key" "${now:-absent}" "$shown"
    fi
done < <(wanted)

# A hint, not a setting of ours: a page for each connection that has something in flight.
read -r _ pressure _ <<<"$(current net.ipv4.tcp_mem) 0 0 0"
verdict "$(yes_if suffices "$pressure" "$connections")" "net.ipv4.tcp_mem (pressure)" "$pressure pages" "$connections or more"

if ((failures > 0)); then
    echo "$failures of these will not do for $connections connections. tuning/README.md says why and what to do."
    exit 1
fi
echo "This host is ready for $connections connections."
