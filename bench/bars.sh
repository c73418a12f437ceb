#!/bin/sh
# The figures this server is held to, measured for ringverb and for soketi in turn: bars.sh FOLDER [ROUNDS]
# Writes one JSON file for each bar, FOLDER/bars.md with all figures, and FOLDER/results.md with the tables of
# RESULTS.md (tables.py). Server on CPU 0, client on CPU 1 (SERVER_CPUS, CLIENT_CPU). With the default of 3 rounds it
# takes about 15 minutes; the machine should have nothing else to do. nginx is measured where it is installed. With
# SOCKUDO=yes the script also measures sockudo, which it first builds.
# Exit code 1 when a run had a violation or could not be made.
set -eu
[ $# -ge 1 ] || { echo "usage: bars.sh FOLDER [ROUNDS]" >&2; exit 2; }
folder=$1
rounds=${2:-3}
. "$(dirname "$0")/tables.sh"
begin bars "Bars"
"$here/soketi.sh" --install
sockudo=
if [ -n "${SOCKUDO:-}" ]; then
    "$here/sockudo.sh" --install
    sockudo="sockudo=ws://127.0.0.1:6431 $here/sockudo.sh --port 6431"
fi

# bar NAME TITLE FIGURES(comma-separated parts of names) ARGUMENTS OF COMPARE...
bar() {
    name=$1 title=$2 figures=$3
    shift 3
    # Memory has a bar of its own, which no other server sets.
    [ -z "$sockudo" ] || [ "$name" = idle ] || set -- --server "$sockudo" "$@"
    printf '\n## %s\n\n' "$title" >> "$table"
    "$here/compare-soketi.sh" --rounds "$rounds" --save "$folder/$name.json" \
        --show "$figures" "$@" >> "$table" || failed=1
}

costs="CPU per,busy,deliveries 1 per s"
bar fanout "Fan-out to 5,000, 64 bytes, 1 and 16 in flight, and the floor" \
    "server CPU per,ratio to floor,flight deliveries 1 per s" -- fanout --with-floor --seconds 4
bar rooms "Rooms of 10, client events, saturated" "$costs,events" -- rooms --seconds 5
bar publish "POST /events, 16 connections, beside a bare server that answers 200" "CPU per,busy,requests 1 per s" \
    --server "floor=ws://127.0.0.1:6441 $target/dist/ringverb-bench http-floor --port 6441" \
    -- publish --subscribers 0 --seconds 5
bar publish-checked "The same, every event delivered to a subscriber" "CPU per,busy,requests 1 per s" \
    -- publish --subscribers 1 --seconds 4
bar churn "Connect, join presence, leave, close" "CPU per,busy,cycles" -- churn --seconds 5
bar idle "15,000 idle connections with a private channel each" \
    "RSS growth,CPU while idle,CPU per" -- idle --seconds 10
bar fanout-rate "Fan-out to 1,000 at 20 events/s" "CPU per,p50,p99 ms" \
    -- fanout --rate 20 --subscribers 1000 --seconds 8
bar rooms-rate "Rooms of 10 at 2,000 events/s" "CPU per,p50,p99 ms" -- rooms --rate 2000 --seconds 8

# One worker against two in the same rooms: the client needs a CPU, too, so only the CPU per delivery counts.
printf '\n## Rooms of 10, saturated: two workers against one (CPUs 0 and 1 shared with the client)\n\n' >> "$table"
"$target/dist/ringverb-bench" --server-cpus "${ALL_CPUS:-0,1}" --pin "${CLIENT_CPU:-1}" compare \
    --server "one-worker=ws://127.0.0.1:6411 env RINGVERB_WORKERS=1 $here/ringverb.sh --port 6411" \
    --server "two-workers=ws://127.0.0.1:6412 env RINGVERB_WORKERS=2 $here/ringverb.sh --port 6412" \
    --rounds "$rounds" --save "$folder/workers.json" --show "$costs" -- rooms --seconds 5 >> "$table" || failed=1

# Ringverb on both kernel interfaces, beside nginx that answers 200, and beside a bare server that answers handshakes.
io_uring="io_uring=ws://127.0.0.1:6451 env RINGVERB_IO=io_uring $here/ringverb.sh --port 6451"
epoll="epoll=ws://127.0.0.1:6452 env RINGVERB_IO=epoll $here/ringverb.sh --port 6452"
if PATH=$PATH:/usr/sbin command -v nginx > /dev/null; then
    compare new-connections "POST /events, a new connection for each request" "server CPU per request,busy" \
        --server "nginx=ws://127.0.0.1:6454 $here/nginx.sh --port 6454" --server "$io_uring" --server "$epoll" \
        -- publish --close --subscribers 0 --seconds 3
fi
compare kernels-fanout "Fan-out to 5,000, one in flight, on io_uring and on epoll" "server CPU per" \
    --server "$io_uring" --server "$epoll" -- fanout --in-flight 1 --seconds 4
compare kernels-rooms "Rooms of 10, saturated, on io_uring and on epoll" "server CPU per" \
    --server "$io_uring" --server "$epoll" -- rooms --seconds 5
compare handshakes "WebSocket handshakes, and a bare server that answers them" "CPU per,busy" \
    --server "ringverb=ws://127.0.0.1:6411 $here/ringverb.sh --port 6411" \
    --server "floor=ws://127.0.0.1:6457 $target/dist/ringverb-bench handshake-floor --defer-accept --port 6457" \
    -- connect --connections 15000

cat "$table"
"$here/tables.py" "$folder" --strip || failed=1
"$here/tables.py" "$folder" > "$folder/results.md" || failed=1
exit $failed
