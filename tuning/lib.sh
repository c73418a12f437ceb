# Shared by check.sh, apply.sh and revert.sh: reads files of settings, and the kernel's values. Not to be run.
# shellcheck shell=bash

# The folders can be set elsewhere, to try the scripts without touching the host.
SYSCTL_ROOT=${SYSCTL_ROOT:-/proc/sys}
STATE_FILE=${STATE_FILE:-/var/lib/ringverb-tuning/old-values}
INSTALLED=${INSTALLED:-/etc/sysctl.d/99-ringverb.conf}
CONF=$(dirname "${BASH_SOURCE[0]}")/99-ringverb.conf

die() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 2
}

# for_each_setting FILE COMMAND: `COMMAND NEED KEY VALUE` for each line "key = value" of the file; a value may be
# several numbers. NEED is "optional" for a key that the kernel may lack, which starts with "-", and else "needed".
# Lines are read before the first command, because a command may change the file.
for_each_setting() {
    local line key value need lines setting='^(-?)([a-z][^[:space:]=]*)[[:space:]]*=[[:space:]]*(.*[^[:space:]])'
    mapfile -t lines <"$1"
    for line in "${lines[@]}"; do
        [[ $line =~ $setting ]] || continue
        need=needed key=${BASH_REMATCH[2]} value=${BASH_REMATCH[3]}
        [[ -z ${BASH_REMATCH[1]} ]] || need=optional
        "$2" "$need" "$key" "$value"
    done
}

# Kernel settings are root's to change; in other folders, for a trial, they are not.
needs_root() {
    [[ $SYSCTL_ROOT != /proc/sys || $EUID == 0 ]] ||
        die "kernel settings are root's to change: sudo $0 $*"
}

path_of() {
    printf '%s/%s' "$SYSCTL_ROOT" "${1//.//}"
}

# The value of now, in single spaces; nothing if the kernel lacks it.
current() {
    local words
    read -ra words 2>/dev/null <"$(path_of "$1")" || true
    printf '%s' "${words[*]-}"
}

# Whether a value of now will do: a single number is a minimum, several are meant as they stand.
suffices() {
    local now=$1 want=$2
    if [[ $want =~ ^[0-9]+$ && $now =~ ^[0-9]+$ ]]; then
        # Longer numbers are larger; fs.file-max may be beyond what the shell can count.
        ((${#now} > ${#want} || (${#now} == ${#want} && now >= want)))
    else
        [[ $now == "$want" ]]
    fi
}
