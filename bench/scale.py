#!/usr/bin/env python3
"""Idle connections in numbers: 100,000, 400,000 and a million on one server process, each with a private channel.

    bench/scale.py FOLDER [--connections N ...]

Writes FOLDER/idle-N.json (the output of `ringverb-bench idle --json`) and FOLDER/scale.md, the table of SCALE.md.
A worker has a table of descriptors of its own, so 20,000 descriptors for each table need a worker for 18,519
connections, whatever the number of CPUs. A million needs 11 GB, because the clients are on the same host. Builds the
workspace in the profile `dist` unless BUILT is set. Loopback only; takes about 4 minutes and ends by itself. Exit code
1 if a run failed or had a violation.
"""

import argparse
import json
import math
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve() / "dist"
WORKER_CONNECTIONS_MAX = 18_519
RUN_SECONDS_MAX = 600
APP = {"REVERB_APP_ID": "1001", "REVERB_APP_KEY": "app-key", "REVERB_APP_SECRET": "app-secret"}


def resident_mb(run):
    """Resident set of the server in MB: fresh, connected, subscribed."""
    return [round(run[f"RSS_{when}_KiB"] * 1.024 / 1000) for when in ("fresh", "connected", "subscribed")]


# The rows of the table: what, unit, and the figure from the JSON of a run.
ROWS = [
    ("RSS of the server: fresh / connected / subscribed, MB", lambda run: " / ".join(map(str, resident_mb(run)))),
    ("user memory per connection, connected", lambda run: f"{run['RSS_growth_per_connection_connected_B']:.0f} B"),
    ("user memory per connection, subscribed", lambda run: f"{run['RSS_growth_per_connection_subscribed_B']:.0f} B"),
    ("kernel slab per connection, both ends of it",
     lambda run: f"{run['kernel_slab_growth_per_connection_both_ends_subscribed_B']:,.0f} B"),
    ("CPU of the server over 10 s, all idle, no ping due",
     lambda run: f"{run['server_CPU_while_idle_ms'] / 1000:.3f} s"),
    ("connections made a second (clients on the same CPUs)", lambda run: f"{run['connect_rate_1_per_s']:,.0f}"),
    ("CPU of the server per handshake", lambda run: f"{run['server_CPU_per_handshake_us']:.1f} µs"),
    ("CPU of the server per private subscription", lambda run: f"{run['server_CPU_per_subscription_us']:.1f} µs"),
    ("TCP sockets of the machine, client ends included", lambda run: f"{run['TCP_sockets_of_the_machine']:,}"),
]


def measure(folder, connections):
    """One run on a fresh server. Returns its figures."""
    workers = math.ceil(connections / WORKER_CONNECTIONS_MAX)
    server = f"{TARGET}/ringverb --host 127.0.0.1 --port 6450"
    command = [TARGET / "ringverb-bench", "--json", "--url", "ws://127.0.0.1:6450", "--server-cmd", server]
    command += ["idle", "--connections", str(connections), "--processes", str(workers)]
    environment = dict(os.environ, **APP, RINGVERB_WORKERS=str(workers), RINGVERB_ADMIN="off")
    # In a folder without a .env.
    run = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, timeout=RUN_SECONDS_MAX)
    if run.returncode != 0:
        sys.exit(f"{connections} connections: {run.stderr or run.stdout}")
    figures = json.loads(run.stdout.splitlines()[-1])
    # Folders of the machine say nothing to a reader.
    figures["machine"]["command"] = figures["machine"]["command"].replace(f"{TARGET}/", "")
    (folder / f"idle-{connections}.json").write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n")
    return figures


def table_of(runs):
    """The table of SCALE.md, the fewest connections first."""
    runs = sorted(runs, key=lambda run: run["connections"])
    lines = ["| connections |" + "".join(f" {run['connections']:,} |" for run in runs)]
    lines.append("|---|" + "---:|" * len(runs))
    workers = [math.ceil(run["connections"] / WORKER_CONNECTIONS_MAX) for run in runs]
    lines.append("| workers, client processes |" + "".join(f" {number}, {number} |" for number in workers))
    for name, figure in ROWS:
        lines.append(f"| {name} |" + "".join(f" {figure(run)} |" for run in runs))
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--connections", type=int, nargs="+", default=[100_000, 400_000, 1_000_000])
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if "BUILT" not in os.environ:
        describe = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
        commit = subprocess.run(describe, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
        build = ["cargo", "build", "--profile", "dist", "--quiet", "-p", "ringverb", "-p", "ringverb-bench"]
        subprocess.run(build, cwd=ROOT, check=True, env=dict(os.environ, RINGVERB_COMMIT=commit))
    runs = [measure(options.folder, connections) for connections in options.connections]
    table = table_of([json.loads(path.read_text()) for path in options.folder.glob("idle-*.json")])
    (options.folder / "scale.md").write_text(table)
    print(table, end="")
    violations = sum(run["violations"] for run in runs)
    sys.exit(f"{violations} violations" if violations else 0)


if __name__ == "__main__":
    main()
