#!/bin/sh
# nginx in the foreground, which ends TLS before a ringverb of its own: `nginx-tls.sh --port N`; ringverb listens on
# N + 1. One process with small buffers (tuning/nginx.conf). Its process id is nginx's: what is measured is what nginx
# costs beside the plain server.
set -eu
[ $# -eq 2 ] && [ "$1" = --port ] || { echo "usage: nginx-tls.sh --port N" >&2; exit 2; }
PATH=$PATH:/usr/sbin
command -v nginx >/dev/null || { echo "nginx-tls.sh: nginx is missing: apt-get install nginx-light" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
certificates=$here/../tests/certificates
behind=$(($2 + 1))
# The folder is not removed at the end: the process stays the same, so that its id is nginx's.
folder=$(mktemp -d "${TMPDIR:-/tmp}/ringverb-nginx.XXXXXX")
cat >"$folder/nginx.conf" <<END
daemon off;
master_process off;
pid $folder/pid;
error_log $folder/error.log;
worker_rlimit_nofile 65536;
events { worker_connections 40000; }
http {
    access_log off;
    client_body_temp_path $folder/body;
    proxy_temp_path $folder/proxy;
    fastcgi_temp_path $folder/fastcgi;
    uwsgi_temp_path $folder/uwsgi;
    scgi_temp_path $folder/scgi;
    ssl_buffer_size 4k;
    ssl_session_tickets on;
    map \$http_upgrade \$to_server { default upgrade; "" ""; }
    upstream behind { server 127.0.0.1:$behind max_fails=0; keepalive 64; }
    server {
        listen 127.0.0.1:$2 ssl reuseport backlog=8192;
        ssl_certificate $certificates/server.pem;
        ssl_certificate_key $certificates/server.key.pem;
        keepalive_requests 1000000000;
        location / {
            proxy_http_version 1.1;
            proxy_set_header Host \$http_host;
            proxy_set_header Upgrade \$http_upgrade;
            proxy_set_header Connection \$to_server;
            proxy_read_timeout 3600s;
            proxy_buffering off;
            proxy_buffer_size 1k;
            proxy_pass http://behind;
        }
    }
}
END
# It ends with nginx.
setpriv --pdeathsig TERM "$here/ringverb.sh" --port "$behind" >/dev/null 2>&1 &
exec nginx -p "$folder" -c "$folder/nginx.conf"
