"""Builds the test programs of the workspace and runs them.

    programs.py [--jobs N] [NAME...]

Prints what `cargo test --no-fail-fast` prints, a program after the other. With names only these programs run, for a
second run with another RINGVERB_IO. With `--jobs` several run at a time, because most of them wait most of the time;
those that measure what the machine does run alone, at the end. Exits with 1 if anything failed.
"""

import argparse
import concurrent.futures
import json
import pathlib
import subprocess
import sys

# They measure latency, memory or descriptors, or keep all cores busy.
ALONE = {"connection_memory", "exhaustion", "fairness", "fuzz_smoke", "memory", "simulator", "sockets"}
# The longest come first.
LONG = ["cluster_edges", "cluster_faults", "refusals", "cluster_floods", "cluster_churn", "cluster_lines"]


def programs():
    """Name, source, executable and folder of each test program."""
    command = ["cargo", "test", "--workspace", "--no-run", "--message-format=json-render-diagnostics"]
    built = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if built.returncode != 0:
        print("could not compile")
        sys.exit(1)
    for line in built.stdout.splitlines():
        message = json.loads(line)
        if message["reason"] == "compiler-artifact" and message["profile"]["test"] and message["executable"]:
            folder = pathlib.Path(message["manifest_path"]).parent
            target = message["target"]
            source = pathlib.Path(target["src_path"]).relative_to(folder)
            kind = "unittests " if "test" not in target["kind"] else ""
            yield target["name"], f"{kind}{source}", message["executable"], folder


def run(program):
    name, source, executable, folder = program
    done = subprocess.run([executable], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    text = done.stdout.decode(errors="replace")
    if done.returncode not in (0, 101):
        text += f"\nprocess didn't exit successfully: {executable} ({done.returncode})\n"
    print(f"     Running {source} ({executable})\n{text}", flush=True)
    return done.returncode == 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--jobs", type=int, default=1)
    arguments = parser.parse_args()
    found = list(programs())
    if arguments.names:
        found = [one for one in found if one[0] in arguments.names]
        missing = set(arguments.names) - {one[0] for one in found}
        if missing:
            sys.exit(f"no such test program: {', '.join(sorted(missing))}")
    rank = {name: place for place, name in enumerate(LONG)}
    together = sorted((one for one in found if one[0] not in ALONE), key=lambda one: rank.get(one[0], len(LONG)))
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        passed = list(pool.map(run, together))
    passed += [run(one) for one in found if one[0] in ALONE]
    sys.exit(0 if all(passed) else 1)


if __name__ == "__main__":
    main()
