#!/usr/bin/env python3
"""What the server of a container test reaches: a name server and a backend that speaks TLS.

    outside.py CERTIFICATE KEY TLS_PORT

Runs in the network namespace of the container, on 127.0.0.1. The name server (port 53) knows the address of
`dns.test`, and says of all other names that they do not exist. The backend answers every request with 200. Prints
"ready" when both listen, and runs until it is ended.
"""

import http.server
import ipaddress
import socket
import ssl
import struct
import sys
import threading

KNOWN = "dns.test"
ADDRESS = ipaddress.IPv4Address("127.0.0.1").packed
TYPE_A = 1
NXDOMAIN = 3


def answer(query):
    """RFC 1035: the question comes back, with an address where there is one."""
    labels, at = [], 12
    while length := query[at]:
        labels.append(query[at + 1 : at + 1 + length].decode())
        at += 1 + length
    question = query[12 : at + 5]
    [kind] = struct.unpack_from(">H", query, at + 1)
    is_known = ".".join(labels).lower() == KNOWN
    records = b""
    if is_known and kind == TYPE_A:
        # A pointer to the name in the question; class IN, one minute.
        records = struct.pack(">HHHIH", 0xC00C, TYPE_A, 1, 60, len(ADDRESS)) + ADDRESS
    flags = 0x8580 | (0 if is_known else NXDOMAIN)
    return query[:2] + struct.pack(">HHHHH", flags, 1, bool(records), 0, 0) + question + records


def serve_names(server):
    while True:
        query, peer = server.recvfrom(512)
        server.sendto(answer(query), peer)


class Backend(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


def main(certificate, key, port):
    names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    names.bind(("127.0.0.1", 53))
    threading.Thread(target=serve_names, args=[names], daemon=True).start()
    backend = http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), Backend)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    backend.socket = context.wrap_socket(backend.socket, server_side=True)
    print("ready", flush=True)
    backend.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
