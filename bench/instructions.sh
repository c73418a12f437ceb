#!/bin/sh
# Instructions and allocations per thing done, the former counted by callgrind: steadier than time, for changes of a few
# percent.
#     bench/instructions.sh [PART OF A NAME]
# A case is run N and 2 N times and the difference divided, so that setting it up does not count.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
if ! command -v valgrind > /dev/null; then
    echo "instructions.sh: valgrind is missing, trying apt-get install valgrind" >&2
    apt-get install -y valgrind > /dev/null 2>&1 || {
        echo "instructions.sh: valgrind cannot be installed here (apt-get install valgrind failed);" \
            "nothing is counted" >&2
        exit 2
    }
fi
cd "$here/.."
program=$(cargo bench --quiet -p ringverb-bench --bench instructions --no-run --message-format=json |
    grep '"name":"instructions"' | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -1)
[ -x "$program" ] || { echo "instructions.sh: the benchmark was not built" >&2; exit 2; }

count() { # NAME RUNS: instructions and allocations
    allocations=$(valgrind --tool=callgrind --callgrind-out-file=/dev/null --log-file="$log" "$program" "$1" "$2")
    echo "$(sed -n 's/.*Collected *: *\([0-9]*\).*/\1/p' "$log") $allocations"
}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

echo "# commit $(git describe --always --dirty --abbrev=12)"
printf '%-28s %14s %14s\n' case instructions allocations
"$program" | while read -r name items; do
    case $name in *"${1:-}"*) ;; *) continue ;; esac
    runs=1000
    [ "$items" -lt 50 ] || runs=20
    once=$(count "$name" $runs)
    twice=$(count "$name" $((2 * runs)))
    case "$once $twice" in
        *[0-9]' '*[0-9]' '*[0-9]' '*[0-9]) ;;
        *) echo "instructions.sh: callgrind failed on $name" >&2; exit 2 ;;
    esac
    echo "$once $twice" |
        awk -v n=$((runs * items)) -v name="$name" \
            '{ printf "%-28s %14.1f %14.2f\n", name, ($3 - $1) / n, ($4 - $2) / n }'
done
