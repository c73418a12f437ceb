#!/bin/sh
# TLS in the server beside the same server in plain HTTP, and beside nginx that ends TLS: tls.sh FOLDER [ROUNDS]
# Writes one JSON file for each comparison and FOLDER/tls.md. Server on CPU 0, client on CPU 1 (SERVER_CPUS,
# CLIENT_CPU). The row of nginx is nginx alone; the plain server works behind it and costs what the first row says.
# Huge pages are off, because memory of a process grows by 2 MiB with them. 3 rounds take about 10 minutes. Other work
# on the machine makes the times longer; ratios within a round remain. Needs nginx, and root for real-time priority.
set -eu
[ $# -ge 1 ] || { echo "usage: tls.sh FOLDER [ROUNDS]" >&2; exit 2; }
folder=$1
rounds=${2:-3}
. "$(dirname "$0")/tables.sh"
begin tls "TLS"

export MIMALLOC_ALLOW_THP=0
certificate="RINGVERB_TLS_CERT=$here/../tests/certificates/server.pem"
key="RINGVERB_TLS_KEY=$here/../tests/certificates/server.key.pem"
plain="plain=ws://127.0.0.1:6461 $here/ringverb.sh --port 6461"
tls="tls=wss://127.0.0.1:6462 env $certificate $key $here/ringverb.sh --port 6462"
nginx="nginx=wss://127.0.0.1:6463 $here/nginx-tls.sh --port 6463"

compare fanout-1 "Fan-out to 5,000, 64 bytes, 1 in flight" "CPU per,p99 ms" \
    --server "$plain" --server "$tls" --server "$nginx" -- fanout --in-flight 1 --seconds 4
compare fanout-16 "The same, 16 in flight" "CPU per,p99 ms" \
    --server "$plain" --server "$tls" --server "$nginx" -- fanout --in-flight 16 --seconds 4
compare idle "15,000 idle connections with a private channel each" "RSS growth,CPU while idle,CPU per" \
    --server "$plain" --server "$tls" --server "$nginx" -- idle --seconds 5

# Handshakes beside rustls alone and a bare loop of it, and in memory; and a running fan-out during 500 of them a
# second.
{
    printf '\n## Handshakes with a subscription\n\n'
    "$here/tls-handshakes.py" --rounds "$rounds" || failed=1
    printf '\n## Handshakes in memory\n\n'
    (cd "$here/.." && cargo bench --quiet -p ringverb-bench --bench handshakes) || failed=1
    printf '\n## Fan-out at 20/s to 1,000: alone, and during 500 handshakes a second\n\n'
    "$here/tls-storm.py" --rounds "$rounds" || failed=1
} >> "$table"

cat "$table"
exit $failed
