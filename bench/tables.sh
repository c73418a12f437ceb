# For scripts that compare servers and write a table; they set `folder` and `rounds`, and source this. Not a program.
# Server on CPU 0 and client on CPU 1, unless SERVER_CPUS and CLIENT_CPU name others.
# shellcheck shell=sh
here=$(cd "$(dirname "$0")" && pwd)
target=${CARGO_TARGET_DIR:-$here/../target}
failed=0

# begin NAME TITLE: builds both programs, unless BUILT is set, and begins FOLDER/NAME.md, which is then $table. The
# server has its commit inside, so that each JSON file names it.
begin() {
    mkdir -p "$folder"
    table=$folder/$1.md
    [ -n "${BUILT:-}" ] || (
        cd "$here/.."
        RINGVERB_COMMIT=$(git describe --always --dirty --abbrev=12)
        export RINGVERB_COMMIT
        cargo build --profile dist --quiet -p ringverb -p ringverb-bench
    )
    # Another build would be one without the commit.
    export BUILT=yes
    {
        echo "# $2"
        echo
        echo "$(date -u '+%Y-%m-%d %H:%M UTC'), Linux $(uname -r), $(nproc)" \
            "cores,$(grep -m1 'model name' /proc/cpuinfo | cut -d: -f2);"
        echo "load $(cut -d' ' -f1-3 /proc/loadavg) before; $rounds rounds;" \
            "server on CPU ${SERVER_CPUS:-0}, client on CPU ${CLIENT_CPU:-1}."
    } > "$table"
}

# compare NAME TITLE FIGURES(comma-separated parts of names) SERVERS AND SCENARIO...: the first server is the yardstick.
compare() {
    name=$1 title=$2 figures=$3
    shift 3
    printf '\n## %s\n\n' "$title" >> "$table"
    "$target/dist/ringverb-bench" --server-cpus "${SERVER_CPUS:-0}" --pin "${CLIENT_CPU:-1}" compare \
        --rounds "$rounds" --save "$folder/$name.json" --show "$figures" "$@" >> "$table" || failed=1
}
