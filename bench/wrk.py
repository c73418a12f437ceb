#!/usr/bin/env python3
"""Server CPU of a signed POST /events of 150 bytes from wrk, beside nginx and a bare server.

    bench/wrk.py [--close] [--rounds N] [--seconds N] NAME=BINARY[=KERNEL]...

--close    a new connection for each request, compared with nginx (`return 200`); otherwise 16 kept connections,
           compared with `ringverb-bench http-floor`
NAME       what the table calls a build of ringverb; KERNEL is a value of RINGVERB_IO

Servers run in turn on CPU 0 and wrk on CPU 1, every other round in reverse order. Prints the median of the server's
CPU per request, and the median of the ratios to the first server, with the least and the greatest. Exit code 1 if a
request was refused. Needs wrk, nginx and a release build of ringverb-bench.
"""

import argparse
import hashlib
import hmac
import os
import pathlib
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", HERE.parent / "target"))
BODY = '{"name":"event","channel":"news","data":"%s"}' % ("x" * 107)
START_SECONDS_MAX = 10


def cpu_ns(process):
    """The run time of all threads, without waiting."""
    threads = pathlib.Path(f"/proc/{process}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads)


def write_requests(path, is_closing):
    digest = hashlib.md5(BODY.encode()).hexdigest()
    query = f"auth_key=app-key&auth_timestamp={int(time.time())}&auth_version=1.0&body_md5={digest}"
    text = f"POST\n/apps/1001/events\n{query}".encode()
    signature = hmac.new(b"app-secret", text, hashlib.sha256).hexdigest()
    connection = ', ["Connection"]="close"' if is_closing else ""
    path.write_text(
        f'wrk.method="POST"\nwrk.path="/apps/1001/events?{query}&auth_signature={signature}"\n'
        f'wrk.body=[[{BODY}]]\nwrk.headers={{["Content-Type"]="application/json"{connection}}}\n'
    )


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def wait_for(port, server):
    end = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < end and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except ConnectionRefusedError:
            time.sleep(0.02)
    raise SystemExit("wrk.py: a server did not start")


def measure(command, environment, arguments, script):
    """Microseconds of the server for each request."""
    port = free_port()
    command = ["taskset", "-c", "0", *map(str, command), "--port", str(port)]
    # Each of these commands is replaced by the server, so the process is the server's.
    server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(port, server)
        write_requests(script, arguments.close)
        before = cpu_ns(server.pid)
        load = ["taskset", "-c", "1", "wrk", "-t1", "-c16", f"-d{arguments.seconds}s", "-s", script]
        text = subprocess.run([*load, f"http://127.0.0.1:{port}"], capture_output=True, text=True, check=True).stdout
        used = cpu_ns(server.pid) - before
    finally:
        server.terminate()
        server.wait()
    if "Non-2xx" in text or not (count := re.search(r"(\d+) requests in", text)):
        raise SystemExit(f"wrk.py: requests were refused:\n{text}")
    return used / int(count.group(1)) / 1000


def main():
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
        return
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--close", action="store_true")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("servers", nargs="+")
    arguments = parser.parse_args()
    floor = ("nginx", [HERE / "nginx.sh"]) if arguments.close else (
        "floor", [TARGET / "release/ringverb-bench", "http-floor"])
    servers = [(*floor, dict(os.environ))]
    for server in arguments.servers:
        name, binary, *kernel = server.split("=")
        environment = {**os.environ, "RINGVERB": str(pathlib.Path(binary).resolve())}
        environment.update({"RINGVERB_IO": kernel[0]} if kernel else {})
        servers.append((name, [HERE / "ringverb.sh"], environment))
    found = {name: [] for name, *_ in servers}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.rounds):
            for name, command, environment in servers if number % 2 == 0 else servers[::-1]:
                script = pathlib.Path(folder) / "request.lua"
                found[name].append(measure(command, environment, arguments, script))
    first = found[servers[0][0]]
    print("| server | CPU of a request, µs | ratio to the first |\n|---|---:|---:|")
    for name, values in found.items():
        ratios = [value / other for value, other in zip(values, first)]
        shown = [f"{statistics.median(of):.2f} ({min(of):.2f} to {max(of):.2f})" for of in (values, ratios)]
        print(f"| {name} | {shown[0]} | {shown[1]} |")


if __name__ == "__main__":
    main()
