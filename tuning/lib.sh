# Shared by check.sh, apply.sh and revert.sh: reads 99-ringverb.conf and the kernel's values. Not to be run.
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

# Lines "key value" or "key number number …"; a key the kernel may lack starts with "-".
wanted() {
    sed -n 's/[[:space:]]*=[[:space:]]*/ /; /^-\{0,1\}[a-z]/p' "$CONF"
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
