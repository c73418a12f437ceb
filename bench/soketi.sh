#!/bin/sh
# soketi 1.6.1 from npm, as a server to compare with: `soketi.sh --install`, then `soketi.sh --port N` in the
# foreground on 127.0.0.1 with the app 1001, app-key, app-secret. It goes to $CARGO_TARGET_DIR/soketi or target/soketi.
# Its WebSocket library is replaced by a build that npm has: the original one is only on GitHub.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
folder=${CARGO_TARGET_DIR:-$here/../target}/soketi
program=$folder/node_modules/@soketi/soketi/bin/server.js

install() {
    [ -e "$program" ] && return
    major=$(node -p 'process.versions.node.split(".")[0]')
    [ "$major" = 20 ] || { echo "soketi.sh: needs Node 20, this is $(node -v)" >&2; exit 2; }
    mkdir -p "$folder"
    cat > "$folder/package.json" <<'JSON'
{
  "private": true,
  "dependencies": { "@soketi/soketi": "1.6.1" },
  "overrides": { "uWebSockets.js": "npm:@trufflesuite/uws-js-unofficial@20.30.0-unofficial.0" }
}
JSON
    (cd "$folder" && npm install --no-audit --no-fund --loglevel=error >&2)
    [ -e "$program" ] || { echo "soketi.sh: npm did not install soketi" >&2; exit 2; }
}

case "${1:-}" in
--install) install ;;
--port)
    [ -e "$program" ] || { echo "soketi.sh: first run soketi.sh --install" >&2; exit 2; }
    export SOKETI_HOST=127.0.0.1 SOKETI_PORT="$2" SOKETI_METRICS_SERVER_PORT=$(($2 + 1))
    export SOKETI_DEFAULT_APP_ID=1001 SOKETI_DEFAULT_APP_KEY=app-key SOKETI_DEFAULT_APP_SECRET=app-secret
    export SOKETI_DEFAULT_APP_ENABLE_CLIENT_MESSAGES=true NODE_ENV=production
    # The process stays the same, so its id is soketi's.
    cd "$folder" && exec node "$program" start
    ;;
*)
    echo "usage: soketi.sh --install | --port N" >&2
    exit 2
    ;;
esac
