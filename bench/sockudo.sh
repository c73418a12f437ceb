#!/bin/sh
# sockudo 2.9.2 from crates.io, as a server to compare with: `sockudo.sh --install` (a build of some minutes), then
# `sockudo.sh --port N` in the foreground on 127.0.0.1 with the app 1001, app-key, app-secret, its limits out of the
# way.
# It goes to $CARGO_TARGET_DIR/sockudo or target/sockudo.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
folder=${CARGO_TARGET_DIR:-$here/../target}/sockudo
program=$folder/bin/sockudo

case "${1:-}" in
--install)
    [ -x "$program" ] || \
        cargo install sockudo --version 2.9.2 --locked --root "$folder" --target-dir "$folder/build" >&2
    ;;
--port)
    [ -x "$program" ] || { echo "sockudo.sh: first run sockudo.sh --install" >&2; exit 2; }
    program=$(readlink -f "$program")
    export HOST=127.0.0.1 PORT="$2" DEBUG=false RATE_LIMITER_ENABLED=false SOCKUDO_ENABLE_CLIENT_MESSAGES=true
    export SOCKUDO_DEFAULT_APP_ID=1001 SOCKUDO_DEFAULT_APP_KEY=app-key SOCKUDO_DEFAULT_APP_SECRET=app-secret
    export SOCKUDO_DEFAULT_APP_MAX_CONNECTIONS=1000000 SOCKUDO_DEFAULT_APP_MAX_READ_REQUESTS_PER_SECOND=1000000
    export SOCKUDO_DEFAULT_APP_MAX_CLIENT_EVENTS_PER_SECOND=1000000
    export SOCKUDO_DEFAULT_APP_MAX_BACKEND_EVENTS_PER_SECOND=100000000
    # The process stays the same, so its id is sockudo's.
    cd / && exec "$program"
    ;;
*)
    echo "usage: sockudo.sh --install | --port N" >&2
    exit 2
    ;;
esac
