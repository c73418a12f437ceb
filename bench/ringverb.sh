#!/bin/sh
# ringverb of the profile `dist` in the foreground, for comparisons: `ringverb.sh --port N [more flags]` on 127.0.0.1
# with the app 1001, app-key, app-secret and one worker unless RINGVERB_WORKERS says otherwise. In a folder without a
# .env.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
program=${RINGVERB:-${CARGO_TARGET_DIR:-$here/../target}/dist/ringverb}
[ -x "$program" ] || { echo "ringverb.sh: first run cargo build --profile dist" >&2; exit 2; }
program=$(readlink -f "$program")
export REVERB_APP_ID=1001 REVERB_APP_KEY=app-key REVERB_APP_SECRET=app-secret
# Several run at a time, and the default place is one.
export RINGVERB_ADMIN="${RINGVERB_ADMIN:-off}"
export RINGVERB_WORKERS="${RINGVERB_WORKERS:-1}"
# The process stays the same, so its id is ringverb's.
cd / && exec "$program" --host 127.0.0.1 "$@"
