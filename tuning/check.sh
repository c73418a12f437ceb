#!/usr/bin/env bash
# Is this host ready for that many connections? Reads only, needs no root. Ends with 1 if anything fails.
# Usage: check.sh [--connections N]   (default 100000)
set -euo pipefail
# shellcheck source=tuning/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage="usage: check.sh [--connections N]   (default 100000)"
connections=100000
if [[ ($* == --help || $* == -h) ]]; then
    echo "$usage"
    echo "Compares this host with what the server needs for N connections. pass: enough. FAIL: too low, and the exit"
    echo "status is 1. note: differs from a precaution of 99-ringverb.conf, which the server does not depend on."
    exit 0
elif [[ ${1-} == --connections && ${2-} =~ ^[1-9][0-9]{0,8}$ && $# == 2 ]]; then
    connections=$2
elif (($# > 0)); then
    die "$usage"
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
grouped() { sed -E ':a; s/([0-9])([0-9]{3})($|,)/\1,\2\3/; ta' <<<"$1"; }

line "" setting now wanted
kernel=$(uname -r)
verdict "$(yes_if test "$(printf '5.19\n%s\n' "$kernel" | sort -V | head -n 1)" = 5.19)" kernel "$kernel" \
    "5.19 or newer for io_uring; older ones use epoll"
io_uring=$(current kernel.io_uring_disabled)
verdict "$(yes_if test "${io_uring:-0}" = 0)" kernel.io_uring_disabled "${io_uring:-absent}" "0"

# The limits of the running server if there is one, or else of this shell. The server raises the soft limit of
# descriptors by itself.
descriptors=$(ulimit -Hn)
locked=$(ulimit -Hl)
whose="this shell"
for limits in /proc/[0-9]*/limits; do
    if [[ $(cat "${limits%limits}comm" 2>/dev/null) == ringverb ]]; then
        descriptors=$(awk '/^Max open files/ { print $5 }' "$limits" 2>/dev/null || true)
        locked=$(awk '/^Max locked memory/ { print ($5 == "unlimited") ? $5 : int($5 / 1024) }' "$limits" \
            2>/dev/null || true)
        whose="process $(basename "$(dirname "$limits")")"
    fi
done
needed=$((connections + 1000))
enough=no
if [[ $descriptors == unlimited ]] || suffices "${descriptors:-0}" "$needed"; then enough=yes; fi
verdict "$enough" "descriptors of $whose" "${descriptors:-unknown}" "$needed or more"

# The small rings of a worker lock 28 KiB, large ones 140 KiB; a take-over needs them twice. Root has no limit.
workers=$(nproc)
kib=$((2 * 28 * workers))
enough=no
if [[ $locked == unlimited ]] || suffices "${locked:-0}" "$kib"; then enough=yes; fi
verdict "$enough" "locked memory of $whose" "${locked:-unknown} KiB" \
    "$kib KiB or more for $workers workers (root: no limit)"

# Whether each number of now is at least the wanted one; a range of ports, whether it is at least as wide.
reaches() {
    local key=$1 numbers wanted index
    read -ra numbers <<<"$2"
    read -ra wanted <<<"$3"
    [[ ${#numbers[@]} == "${#wanted[@]}" ]] || return 1
    if [[ $key == net.ipv4.ip_local_port_range ]]; then
        ((numbers[0] <= wanted[0] && numbers[1] >= wanted[1]))
        return
    fi
    for index in "${!wanted[@]}"; do
        suffices "${numbers[index]}" "${wanted[index]}" || return 1
    done
}

compare() {
    local need=$1 key=$2 want=$3 now
    now=$(current "$key")
    if [[ -z $now && $need == optional ]]; then
        line skip "$key" absent "$want or more"
    elif [[ $key == fs.* ]] && ! suffices "${now:-0}" "$needed"; then
        # The server has a descriptor for each connection.
        verdict no "$key" "${now:-absent}" "$needed or more"
    elif reaches "$key" "$now" "$want"; then
        line pass "$key" "$now" "$want or more"
    else
        line note "$key" "${now:-absent}" "$want or more, as a precaution"
    fi
}
for_each_setting "$CONF" compare

# A hint, not a setting of ours: a page for each connection that has something in flight.
read -r _ pressure _ <<<"$(current net.ipv4.tcp_mem) 0 0 0"
word=note
if suffices "$pressure" "$connections"; then word=pass; fi
line "$word" "net.ipv4.tcp_mem (pressure)" "$pressure pages" "$connections or more, as a precaution"

if ((failures > 0)); then
    settings="settings are"
    if ((failures == 1)); then settings="setting is"; fi
    echo "$failures $settings too low for $(grouped "$connections") connections." \
        "tuning/README.md says why and what to do."
    exit 1
fi
echo "This host is ready for $(grouped "$connections") connections."
