#!/usr/bin/env python3
"""p99 of a fan-out over TLS at 20/s to 1,000 subscribers: alone, and during 500 full handshakes a second, in turn.

tls-storm.py [--rounds 8] [--seconds 5] [--rate 500] prints a Markdown table. Takes server and load generator of the
profile `dist`, and needs root: all processes have real-time priority (chrt -f), so that other work on the machine does
not count. The server is alone on its CPU. On the other CPU the program that measures has a higher priority than the one
that makes the handshakes, so the work of that one does not count either. "inside" is the server's own histograms of
/metrics, which know nothing of clients: the bucket of the 99th percentile.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", HERE / "../target")) / "dist"
SUBSCRIBERS = 1000
ADMIN = "127.0.0.1:6465"
URL = "wss://127.0.0.1:6464"
SERVER_CPU = os.environ.get("SERVER_CPUS", "0")
CLIENT_CPU = os.environ.get("CLIENT_CPU", "1")


def real_time(priority, *command):
    return ["chrt", "-f", str(priority), *command]


def bench(priority, *words):
    program = [str(TARGET / "ringverb-bench"), "--url", URL, "--pin", CLIENT_CPU, "--any-exit", "--json"]
    return real_time(priority, *program, *words)


def scrape():
    """Both histograms, by bound in milliseconds, and the connections so far."""
    text = urllib.request.urlopen(f"http://{ADMIN}/metrics", timeout=10).read().decode()
    found = {}
    for name in ["publish_to_flush", "tick"]:
        lines = re.findall(rf'^ringverb_{name}_seconds_bucket{{core="0",le="([^"]+)"}} (\d+)', text, re.M)
        found[name] = [(float(bound) * 1000, int(count)) for bound, count in lines]
    opened = re.findall(r"^ringverb_new_connections_total{.*} (\d+)", text, re.M)
    return {**found, "opened": sum(map(int, opened)), "at": time.monotonic()}


def p99(before, after):
    counts = [(bound, now - then) for (bound, now), (_, then) in zip(after, before)]
    all_of_them = counts[-1][1]
    return next((bound for bound, count in counts if count >= 0.99 * all_of_them), float("inf"))


def of(report, *parts):
    return next(value for name, value in report.items() if all(part in name for part in parts))


def window(seconds, rate, server):
    """One window: its row, and whether it was clean."""
    load = None
    if rate:
        # It begins before the window and ends after it.
        count = str(int(rate * (seconds + 8)))
        load = subprocess.Popen(
            bench(5, "connect", "--rate", str(rate), "--connections", count),
            env={**os.environ, "RINGVERB_BENCH_TLS": "full-1.3"}, stdout=subprocess.PIPE)
        time.sleep(1)
    before = scrape()
    command = bench(20, "--server-pid", str(server), "fanout", "--rate", "20", "--subscribers", str(SUBSCRIBERS),
        "--seconds", str(seconds))
    run = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    after = scrape()
    report = json.loads(run.stdout)
    # Those of the subscribers are made before the events.
    made = (after["opened"] - before["opened"] - SUBSCRIBERS) / (after["at"] - before["at"])
    if load:
        load.communicate()
    row = {
        "p50 ms": of(report, "each_delivery", "p50_ms"),
        "p99 ms": of(report, "each_delivery", "p99_ms"),
        "client late, p99 ms": of(report, "lateness", "p99_ms"),
        "inside: publish to flush, p99 at most ms": p99(before["publish_to_flush"], after["publish_to_flush"]),
        "inside: tick, p99 at most ms": p99(before["tick"], after["tick"]),
        "other handshakes/s": round(made),
    }
    return row, run.returncode == 0 and (not load or load.returncode == 0)


def median(values):
    return sorted(values)[len(values) // 2]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rate", type=float, default=500)
    options = parser.parse_args()
    certificates = HERE / "../tests/certificates"
    environment = {
        **os.environ, "RINGVERB_ADMIN": ADMIN, "MIMALLOC_ALLOW_THP": "0",
        "RINGVERB_TLS_CERT": str(certificates / "server.pem"), "RINGVERB_TLS_KEY": str(certificates / "server.key.pem")}
    command = real_time(10, "taskset", "-c", SERVER_CPU, str(HERE / "ringverb.sh"), "--port", "6464")
    server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    clean, rows = True, {"alone": [], "storm": []}
    try:
        for _ in range(100):
            try:
                scrape()
                break
            except OSError:
                time.sleep(0.1)
        for number in range(1, options.rounds + 1):
            for kind, rate in [("alone", 0), ("storm", options.rate)]:
                row, good = window(options.seconds, rate, server.pid)
                clean &= good
                if not rows["alone"]:
                    print(f"load {os.getloadavg()[0]:.0f}; windows of {options.seconds} s\n")
                    print("| round | | " + " | ".join(row) + " |")
                    print("|---|---|" + "---:|" * len(row))
                rows[kind].append(row)
                print(f"| {number} | {kind} | " + " | ".join(str(value) for value in row.values()) + " |", flush=True)
    finally:
        server.terminate()
        server.wait()
    for name in ["p99 ms", "inside: publish to flush, p99 at most ms"]:
        alone, storm = ([row[name] for row in rows[kind]] for kind in ["alone", "storm"])
        more = [after - before for before, after in zip(alone, storm)]
        print(f"\n{name}: median {median(alone)} alone, {median(storm)} in the storm; "
              f"more in the same round: {min(more):.2f} to {max(more):.2f}, median {median(more):.2f}")
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
