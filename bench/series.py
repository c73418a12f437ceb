"""A series of raw data: the JSON files that bench/bars.sh wrote into one folder. bench/tables.py makes tables of it."""

import json
import re
import statistics

FANOUT_1 = "1_in_flight_server_CPU_per_delivery_us"
FANOUT_16 = "16_in_flight_server_CPU_per_delivery_us"
DELIVERY = "server_CPU_per_delivery_us"
REQUEST = "server_CPU_per_request_us"
CYCLE = "server_CPU_per_cycle_us"
HANDSHAKE = "server_CPU_per_handshake_us"
SUBSCRIPTION = "server_CPU_per_subscription_us"
IDLE_CPU = "server_CPU_while_idle_ms"
MEMORY = "RSS_growth_per_connection_after_idle_B"
MEMORY_CONNECTED = "RSS_growth_per_connection_connected_B"
# Servers of other projects. What else a file compares with is a floor, or another configuration of ringverb.
PEERS = ("soketi", "sockudo")


class BadData(Exception):
    """The raw data do not have what a table needs. The text says what is missing where."""


class Series:
    """The JSON files of a folder. Reads each once."""

    def __init__(self, folder):
        self.folder = folder
        self.files = {}
        for path in sorted(folder.glob("*.json")):
            try:
                self.files[path.stem] = json.loads(path.read_text())
            except (OSError, ValueError) as error:
                raise BadData(f"{path}: {error}") from error
        self.compared = {name: data for name, data in self.files.items() if "runs" in data}
        if not self.compared:
            raise BadData(f"{folder}: no JSON file of a comparison: fill the folder by bench/bars.sh")

    def runs(self, file, server):
        """All runs of a server in the order of the rounds, or None without the file or the server."""
        data = self.compared.get(file)
        if data is None or server not in data["servers"]:
            return None
        return data["runs"][data["servers"].index(server)]

    def values(self, file, server, figure):
        runs = self.runs(file, server)
        if runs is None:
            return None
        try:
            return [float(run[figure]) for run in runs]
        except (KeyError, TypeError, ValueError) as error:
            raise BadData(f"{file}.json: a run of {server} has no figure {figure}") from error

    def best_peer(self, file, figure):
        """The other server with the least median, and its values."""
        peers = [(name, self.values(file, name, figure)) for name in PEERS]
        peers = [(name, values) for name, values in peers if values]
        return min(peers, key=lambda peer: statistics.median(peer[1]), default=None)

    def fact(self, name):
        """A fact of the machine, which all files share."""
        facts = {data["machine"][name] for data in self.files.values()}
        if len(facts) != 1:
            raise BadData(f"{self.folder}: files of different machines: {name} is {' and '.join(sorted(facts))}")
        return facts.pop()

    def commit(self):
        """The commit that the servers printed, or that commit.txt names if the build did not record it."""
        texts = set()
        for data in self.files.values():
            machine = data["machine"]
            printed = "\n".join([machine["server"], *machine.get("servers", [])])
            texts.update(re.findall(r"^commit: ([\w-]+)$", printed, re.M))
        noted = self.folder / "commit.txt"
        if not texts and noted.exists():
            texts = {noted.read_text().strip()}
        if len(texts) > 1:
            raise BadData(f"{self.folder}: files of different builds: commits {' and '.join(sorted(texts))}")
        return texts.pop() if texts else None

    def all_runs(self):
        return [run for data in self.compared.values() for runs in data["runs"] for run in runs]

    def counted_commit(self):
        """The commit whose instructions were counted, from the first line of instructions.txt."""
        first = (self.folder / "instructions.txt").read_text().split("\n", 1)[0]
        return first.removeprefix("# commit ") if first.startswith("# commit ") else "not recorded"

    def instructions(self):
        """(case, instructions, allocations) of instructions.txt."""
        path = self.folder / "instructions.txt"
        if not path.exists():
            return []
        rows = [line.split() for line in path.read_text().splitlines() if not line.startswith(("#", "case "))]
        return [(name, float(count), float(allocations)) for name, count, allocations in rows]


def short(value):
    """Three significant digits: further ones are noise."""
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def unit_of(figure):
    return {"us": " µs", "ms": " ms", "B": " B"}.get(figure.rsplit("_", 1)[-1], "")


def spread(values, unit=""):
    return f"{short(statistics.median(values))}{unit} ({short(min(values))} to {short(max(values))})"


def median(values, unit=""):
    return f"{short(statistics.median(values))}{unit}"


def by_round(values, others):
    """Ratios round by round, so that what drifts over time cancels out."""
    return [value / other for value, other in zip(values, others, strict=True)]


def strip(folder):
    """Rewrites the comparisons without paths of this machine, and each run without the facts that the file has."""
    for path in sorted(folder.glob("*.json")):
        data = json.loads(path.read_text())
        if "runs" not in data:
            continue
        command = re.sub(r"/\S*/dist/", "", data["machine"]["command"])
        command = re.sub(r"/\S*/bench/(?=[\w-]+\.sh)", "bench/", command)
        data["machine"]["command"] = re.sub(r"(--save )\S*/", r"\1", command)
        for run in (run for runs in data["runs"] for run in runs):
            run["machine"] = {name: run["machine"][name] for name in ("date", "load_before")}
        path.write_text(json.dumps(data, sort_keys=True) + "\n")
