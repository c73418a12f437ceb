#!/usr/bin/env python3
"""CPU of a TLS handshake with its subscription, against rustls alone plus a plain handshake with its subscription.

tls-handshakes.py [--rounds 5] [--connections 5000] prints a Markdown table. Takes server and load generator of the
profile `dist`, builds the benchmark `handshakes`, and needs root: all processes have real-time priority, so that
other work on the machine does not count. Each round measures in turn: rustls' buffered API in memory (`handshakes`),
the server without TLS, the server with each kind of handshake, and a bare loop of rustls with the same flights
(`handshake-floor`). Ratios are of rounds. Server on CPU 0, client on CPU 1 (SERVER_CPUS, CLIENT_CPU).
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", HERE / "../target")) / "dist"
BENCH = str(TARGET / "ringverb-bench")
CERTIFICATE, KEY = (str(HERE / "../tests/certificates" / name) for name in ["server.pem", "server.key.pem"])
CPU = os.environ.get("SERVER_CPUS", "0")
CLIENT_CPU = os.environ.get("CLIENT_CPU", "1")
KINDS = ["full-1.3", "resumed-1.3", "full-1.2", "resumed-1.2"]
PORT = 6466
FLOOR = f"{BENCH} handshake-floor --defer-accept --port {PORT} --tls-cert {CERTIFICATE} --tls-key {KEY}"
SERVER = f"{HERE / 'ringverb.sh'} --port {PORT}"


def benchmark():
    command = ["cargo", "bench", "--profile", "dist", "--quiet", "-p", "ringverb-bench", "--bench", "handshakes",
        "--no-run", "--message-format=json"]
    messages = subprocess.run(command, cwd=HERE.parent, check=True, stdout=subprocess.PIPE).stdout.splitlines()
    targets = (json.loads(line) for line in messages)
    found = [one["executable"] for one in targets if one.get("target", {}).get("name") == "handshakes" and
        one.get("executable")]
    return found[-1]


def alone(program):
    """Of rustls alone in memory, by kind, in µs."""
    command = ["chrt", "-f", "10", "taskset", "-c", CPU, program, "3"]
    text = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    rows = re.findall(r"^\| (1\.\d) (full|resumed) \| ([\d.]+) \|", text, re.M)
    return {f"{which}-{version}": float(us) for version, which, us in rows}


def connect(server, connections, kind=None, secure=True):
    """Of a handshake with its subscription, in µs."""
    environment = {**os.environ, "MIMALLOC_ALLOW_THP": "0"}
    if secure:
        environment.update(RINGVERB_TLS_CERT=CERTIFICATE, RINGVERB_TLS_KEY=KEY, RINGVERB_BENCH_TLS=kind)
    url = f"{'wss' if secure else 'ws'}://127.0.0.1:{PORT}"
    words = ["--json", "--url", url, "--server-cmd", server, "--server-cpus", CPU, "--pin", CLIENT_CPU, "--any-exit"]
    scenario = ["connect", "--subscribe", "--connections", str(connections)]
    command = ["chrt", "-f", "10", BENCH, *words, *scenario]
    report = json.loads(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout)
    return next(value for name, value in report.items() if "server_CPU_per_handshake" in name)


def spread(values):
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=5000)
    options = parser.parse_args()
    program = benchmark()
    rounds = []
    for _ in range(options.rounds):
        row = {"alone": alone(program), "plain": connect(SERVER, options.connections, secure=False)}
        for kind in KINDS:
            row[kind] = connect(SERVER, options.connections, kind)
            row[f"floor {kind}"] = connect(FLOOR, options.connections, kind)
        rounds.append(row)
    of = lambda name: statistics.median(row[name] for row in rounds)
    print(f"load {os.getloadavg()[0]:.0f}; {options.rounds} rounds; plain {of('plain'):.1f} µs\n")
    print("| handshake | server, µs | rustls alone, µs | server / (alone + plain) | server / bare loop | TLS part / "
          "full of its version |")
    print("|---|---:|---:|---:|---:|---:|")
    for kind in KINDS:
        full = "full-" + kind.split("-")[1]
        bar = [row[kind] / (row["alone"][kind] + row["plain"]) for row in rounds]
        floor = [row[kind] / row[f"floor {kind}"] for row in rounds]
        part = [(row[kind] - row["plain"]) / (row[full] - row["plain"]) for row in rounds]
        rustls = statistics.median(row["alone"][kind] for row in rounds)
        print(f"| {kind} | {of(kind):.1f} | {rustls:.1f} | {spread(bar)} | {spread(floor)} | {spread(part)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
