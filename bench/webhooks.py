#!/usr/bin/env python3
"""What backends that hang do to publishers: the same open-loop publishes against three servers, one without webhooks,
one with many endpoints that answer, and one with as many of which half do not answer within 30 s. Windows take turns,
so that all see the same machine.

    bench/webhooks.py [--endpoints 100] [--rounds 9] [--seconds 4] [--rate 200] [--churn 5]

All servers run all the time, and have the same churn of subscriptions, which is what makes webhook events: each join is
told to every endpoint. Needs the workspace in the profile `dist`. Loopback only; ends by itself.
"""

import argparse
import json
import multiprocessing
import os
import pathlib
import signal
import socket
import statistics
import subprocess
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "dist"
HANG_SECONDS = 30


def receiver(ports, hanging, answered):
    """Serves all endpoints; those in `hanging` read and answer after HANG_SECONDS."""

    def serve(connection, hangs):
        with connection:
            data = b""
            while chunk := connection.recv(65536):
                data += chunk
                while b"\r\n\r\n" in data:
                    head, rest = data.split(b"\r\n\r\n", 1)
                    length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                    if len(rest) < length:
                        break
                    if hangs:
                        time.sleep(HANG_SECONDS)
                    else:
                        with answered.get_lock():
                            answered.value += len(json.loads(rest[:length])["events"])
                    data = rest[length:]
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    def accept(listener, hangs):
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=serve, args=(connection, hangs), daemon=True).start()

    for number in range(len(ports)):
        listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        ports[number] = listener.getsockname()[1]
        threading.Thread(target=accept, args=(listener, number in hanging), daemon=True).start()
    signal.pause()


def churn(ports, per_second):
    """Joins and leaves channels on both servers, each join a channel that was empty."""
    sockets = []
    for port in ports:
        connection = socket.create_connection(("127.0.0.1", port))
        connection.sendall(
            b"GET /app/app-key?protocol=7 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        threading.Thread(target=lambda c=connection: all(iter(lambda: c.recv(65536), b"")), daemon=True).start()
        sockets.append(connection)

    def send(connection, event, channel):
        text = json.dumps({"event": f"pusher:{event}", "data": {"channel": channel}}).encode()
        assert len(text) < 126
        connection.sendall(bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text)

    due = time.monotonic()
    for number in range(10**9):
        for connection in sockets:
            send(connection, "subscribe", f"churn-{number}")
            if number >= 20:
                send(connection, "unsubscribe", f"churn-{number - 20}")
        due += 1 / per_second
        time.sleep(max(0, due - time.monotonic()))


def start_server(port, folder, webhooks):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("REVERB", "RINGVERB"))}
    app = 'id = "1001"\nkey = "app-key"\nsecret = "app-secret"\n'
    tables = "".join(f'[[apps.webhooks]]\nurl = "{url}"\n' for url in webhooks)
    config = folder / f"{port}.toml"
    config.write_text(f"[[apps]]\n{app}{tables}")
    log = open(folder / f"{port}.log", "wb")
    server = subprocess.Popen(
        [TARGET / "ringverb", "--host", "127.0.0.1", "--port", str(port), "--config", config],
        cwd=folder, env=environment, stdout=log, stderr=log,
    )
    while True:
        try:
            return server, socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            assert server.poll() is None, config
            time.sleep(0.02)


def window(port, arguments):
    """One window of publishes; milliseconds from schedule to delivery."""
    out = subprocess.run(
        [TARGET / "ringverb-bench", "--url", f"ws://127.0.0.1:{port}", "fanout", "--subscribers", "1",
         "--rate", str(arguments.rate), "--seconds", str(arguments.seconds), "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True,
    )
    figures = json.loads(out.stdout)
    assert figures["violations"] == 0
    return [figures[f"{arguments.rate}_per_s_schedule_to_each_delivery_{name}_ms"] for name in ("p50", "p99")]


NAMES = {6421: "none", 6422: "all answer", 6423: "half hang"}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, default in [("endpoints", 100), ("rounds", 9), ("seconds", 4), ("rate", 200), ("churn", 5)]:
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args()
    # The first lot of ports hangs, the other two lots answer.
    half = arguments.endpoints // 2
    ports = multiprocessing.Array("i", 2 * arguments.endpoints)
    answered = multiprocessing.Value("q", 0)
    receiving = multiprocessing.Process(target=receiver, args=(ports, set(range(half)), answered), daemon=True)
    receiving.start()
    while not all(ports):
        time.sleep(0.02)
    urls = [f"http://127.0.0.1:{port}/" for port in ports]
    endpoints = {6421: [], 6422: urls[arguments.endpoints:], 6423: urls[: arguments.endpoints]}
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        servers = [start_server(port, folder, endpoints[port])[0] for port in NAMES]
        churning = multiprocessing.Process(target=churn, args=(list(NAMES), arguments.churn), daemon=True)
        churning.start()
        rounds = []
        for number in range(arguments.rounds):
            order = [*NAMES][number % 3:] + [*NAMES][: number % 3]
            rounds.append({port: window(port, arguments) for port in order})
            shown = [f"{NAMES[port]} {rounds[-1][port][0]:.3f} / {rounds[-1][port][1]:.3f}" for port in NAMES]
            print(f"round {number + 1}, p50 / p99 in ms: {', '.join(shown)}", flush=True)
        churning.terminate()
        for server in servers:
            server.send_signal(signal.SIGTERM)
        codes = [server.wait(60) for server in servers]
        log = (folder / "6423.log").read_text(errors="replace")
    receiving.terminate()
    for index, name in enumerate(("p50", "p99")):
        medians = {port: statistics.median(found[port][index] for found in rounds) for port in NAMES}
        print(f"{name}: " + ", ".join(f"{NAMES[port]} {medians[port]:.3f} ms" for port in NAMES), end="")
        for base in (6421, 6422):
            ratio = statistics.median(found[6423][index] / found[base][index] for found in rounds)
            print(f"; half hang to {NAMES[base]}: {medians[6423] / medians[base]:.2f} (of rounds {ratio:.2f})", end="")
        print()
    print(f"{answered.value} events answered; {half} endpoints hung for {HANG_SECONDS} s; exit codes {codes}")
    print("last lines of the log:", *log.splitlines()[-2:], sep="\n  ")


if __name__ == "__main__":
    main()
