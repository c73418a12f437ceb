#!/bin/sh
# The two kernel interfaces beside each other, beside nginx and beside an older build:
#     engine.sh FOLDER [ROUNDS] [OLD BINARY]
# Writes one JSON file for each comparison and FOLDER/engine.md. Server on CPU 0, client on CPU 1 (SERVER_CPUS,
# CLIENT_CPU). 5 rounds take about 15 minutes. Other work on the machine makes the times longer; ratios within a
# round remain. Exit code 1 when a run had a violation or could not be made. Needs nginx.
set -eu
[ $# -ge 1 ] || { echo "usage: engine.sh FOLDER [ROUNDS] [OLD BINARY]" >&2; exit 2; }
folder=$1
rounds=${2:-5}
old=${3:-}
. "$(dirname "$0")/tables.sh"
begin engine "Engine"

io_uring="io_uring=ws://127.0.0.1:6451 env RINGVERB_IO=io_uring $here/ringverb.sh --port 6451"
epoll="epoll=ws://127.0.0.1:6452 env RINGVERB_IO=epoll $here/ringverb.sh --port 6452"
before="before=ws://127.0.0.1:6453 env RINGVERB=$old $here/ringverb.sh --port 6453"
nginx="nginx=ws://127.0.0.1:6454 $here/nginx.sh --port 6454"
floor="floor=ws://127.0.0.1:6455 $target/dist/ringverb-bench http-floor --port 6455"
bare="floor=ws://127.0.0.1:6456 $target/dist/ringverb-bench handshake-floor --port 6456"
deferred="deferred=ws://127.0.0.1:6457 $target/dist/ringverb-bench handshake-floor --defer-accept --port 6457"

compare new-connections "POST /events, a new connection for each request, 16 at a time" "server CPU per request,busy" \
    --server "$nginx" --server "$io_uring" --server "$epoll" ${old:+--server "$before"} \
    -- publish --close --subscribers 0 --seconds 3
compare kept "POST /events on 16 kept connections" "server CPU per request,busy" \
    --server "$floor" --server "$io_uring" --server "$epoll" ${old:+--server "$before"} \
    -- publish --subscribers 0 --seconds 3
compare handshakes "WebSocket handshakes" "CPU per,busy" ${old:+--server "$before"} \
    --server "$bare" --server "$deferred" --server "$io_uring" --server "$epoll" -- connect --connections 15000
for scenario in "fanout --in-flight 1 --seconds 3" "fanout --in-flight 16 --seconds 3" "rooms --seconds 3" \
    "rooms --in-flight 256 --seconds 3" "churn --seconds 3" "idle --seconds 5"; do
    # shellcheck disable=SC2086 # the words of a scenario are arguments
    compare "$(echo "$scenario" | tr -d ' -')" "$scenario" "server CPU per,RSS growth,CPU while idle,p99 ms" \
        ${old:+--server "$before"} --server "$io_uring" --server "$epoll" -- $scenario
done

cat "$table"
exit $failed
