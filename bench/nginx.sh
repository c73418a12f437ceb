#!/bin/sh
# nginx in the foreground, which answers 200 to every request and does nothing else: `nginx.sh --port N` on 127.0.0.1.
# One process with `reuseport` and without access log: the yardstick for HTTP requests on new connections.
set -eu
[ $# -eq 2 ] && [ "$1" = --port ] || { echo "usage: nginx.sh --port N" >&2; exit 2; }
PATH=$PATH:/usr/sbin
command -v nginx >/dev/null || { echo "nginx.sh: nginx is missing: apt-get install nginx-light" >&2; exit 2; }
# The folder is not removed at the end: the process stays the same, so that its id is nginx's.
folder=$(mktemp -d "${TMPDIR:-/tmp}/ringverb-nginx.XXXXXX")
cat >"$folder/nginx.conf" <<EOF
daemon off;
master_process off;
pid $folder/pid;
error_log $folder/error.log;
events { worker_connections 4096; }
http {
    access_log off;
    client_body_temp_path $folder/body;
    proxy_temp_path $folder/proxy;
    fastcgi_temp_path $folder/fastcgi;
    uwsgi_temp_path $folder/uwsgi;
    scgi_temp_path $folder/scgi;
    default_type application/json;
    keepalive_requests 1000000000;
    server {
        listen 127.0.0.1:$2 reuseport;
        location / { return 200 "{}"; }
    }
}
EOF
exec nginx -p "$folder" -c "$folder/nginx.conf"
