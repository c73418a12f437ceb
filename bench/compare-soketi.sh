#!/bin/sh
# ringverb against soketi, in turn: compare-soketi.sh [options of compare] -- SCENARIO [ARGUMENTS]
#     bench/compare-soketi.sh --rounds 3 -- rooms --seconds 5
# Server on CPU 0, client on CPU 1 (SERVER_CPUS, CLIENT_CPU). Builds unless BUILT is set, and installs soketi when it is
# missing.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
target=${CARGO_TARGET_DIR:-$here/../target}
[ -n "${BUILT:-}" ] || (cd "$here/.." && cargo build --profile dist --quiet -p ringverb -p ringverb-bench)
"$here/soketi.sh" --install
exec "$target/dist/ringverb-bench" --server-cpus "${SERVER_CPUS:-0}" --pin "${CLIENT_CPU:-1}" compare \
    --server "ringverb=ws://127.0.0.1:6411 $here/ringverb.sh --port 6411" \
    --server "soketi=ws://127.0.0.1:6421 $here/soketi.sh --port 6421" \
    "$@"
