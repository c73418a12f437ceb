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
# What an idle-N.json of bench/scale.py has for the table of SCALE.md and the cited figures.
SCALE_FIGURES = (
    "connections", "RSS_fresh_KiB", "RSS_connected_KiB", "RSS_subscribed_KiB", MEMORY_CONNECTED,
    "RSS_growth_per_connection_subscribed_B", "kernel_slab_growth_per_connection_both_ends_subscribed_B", IDLE_CPU,
    "connect_rate_1_per_s", HANDSHAKE, SUBSCRIPTION, "TCP_sockets_of_the_machine",
)
# Figures that may be 0. Tables divide by the others.
MAY_BE_ZERO = re.compile("_while_idle_|_lateness_")
# Greater than any figure. Python also reads NaN, Infinity and integers without a limit from JSON.
NUMBER_MAX = 1e15
DATE = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"
LOAD = r"\d{1,6}(\.\d+)?( \d{1,6}(\.\d+)?){2}"
# What `git describe` prints.
COMMIT = r"[\w.-]+"
COMMIT_LENGTH_MIN = 7
# Servers of other projects. What else a file compares with is a floor, or another configuration of ringverb.
PEERS = ("soketi", "sockudo")


class BadData(Exception):
    """The raw data do not have what a table needs. The text says what is missing where."""


def need(holds, path, problem, change="restore the file, or measure it again"):
    if not holds:
        raise BadData(f"{path}: {problem}: {change}")


def read_text(path):
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise BadData(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}: restore it") from error


def is_number(value):
    """From 0 on. No figure of a run can be negative."""
    return type(value) in (int, float) and 0 <= value < NUMBER_MAX


def is_figure(name, value):
    return is_number(value) and (value > 0 or bool(MAY_BE_ZERO.search(name)))


def check_texts(path, where, texts, forms):
    """`texts` has each name of `forms`, and its text has that form."""
    need(isinstance(texts, dict), path, f"{where} is missing or no JSON object")
    for name, form in forms.items():
        value = texts.get(name)
        need(isinstance(value, str) and re.fullmatch(form, value, re.S), path,
             f"{where} has {value!r:.80} as {name}, which is no text of the form {form}")


def check_run(path, where, run):
    need(isinstance(run, dict), path, f"{where} is no JSON object")
    check_texts(path, f"machine of {where}", run.get("machine"), {"date": DATE, "load_before": LOAD})
    need(type(run.get("violations")) is int, path, f"{where} has no count of violations")
    for name, value in run.items():
        need(type(value) not in (int, float) or is_number(value), path,
             f"{where} has {value!r:.80} as {name}, which is not a number from 0 to {NUMBER_MAX:.0e}")


def check_comparison(path, data):
    """The runs are one list for each server, and these have a run for each round."""
    servers, rounds, runs = (data.get(name) for name in ("servers", "rounds", "runs"))
    asked = re.findall(r"--server ([^\s=]+)=", data["machine"]["command"])
    need(servers and servers == asked, path, f"servers is {servers}, but the command of machine compares {asked}")
    need(len(set(servers)) == len(servers), path, f"servers is {servers}, with a name twice")
    need(type(rounds) is int and rounds > 0, path, f"rounds is {rounds!r:.80}, not a number from 1 on")
    need(isinstance(runs, list) and len(runs) == len(servers), path,
         f"runs is not a list of {len(servers)} lists, one for each of servers")
    for server, of_server in zip(servers, runs, strict=True):
        need(isinstance(of_server, list) and len(of_server) == rounds, path,
             f"rounds is {rounds}, but runs has not a list of {rounds} runs of {server}")
        for number, run in enumerate(of_server, 1):
            check_run(path, f"run {number} of {server}", run)


def check(path, data):
    """Refuses what is neither a comparison (`compare --save`) nor one run (`--json`) of ringverb-bench."""
    need(isinstance(data, dict), path, "is no JSON object")
    facts = dict.fromkeys(("cores", "CPU", "memory", "kernel"), r"[^|\n]+")
    check_texts(path, "machine", data.get("machine"), facts | dict.fromkeys(("server", "command"), ".*"))
    printed = data["machine"].get("servers", [])
    need(isinstance(printed, list) and all(isinstance(text, str) for text in printed), path,
         "servers of machine is no list of texts")
    if "runs" in data:
        check_comparison(path, data)
    else:
        check_run(path, "the run", data)
    if is_scale(path.stem):
        for name in SCALE_FIGURES:
            need(is_figure(name, data.get(name)), path, f"the run has {data.get(name)!r:.80} as {name}, not over 0")
        need(path.stem == f"idle-{data['connections']}", path, f"the run has {data['connections']} connections")


def is_scale(name):
    return re.fullmatch(r"idle-\d+", name) is not None


def read_run(path):
    """A JSON file, checked."""
    try:
        data = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise BadData(f"{path}: is no JSON: {error}: restore the file, or measure it again") from error
    check(path, data)
    return data


def read_counts(path):
    """The commit of instructions.txt, and its rows (case, instructions, allocations). None and [] without the file."""
    if not path.exists():
        return None, []
    text = read_text(path)
    again = "write the output of bench/instructions.sh into it again"
    need(text.endswith("\n"), path, "is empty or ends within a line", again)
    commit = re.match(rf"# commit ({COMMIT})\n", text)
    need(commit, path, "has no first line with the commit", again)
    rows = []
    for line in text.splitlines():
        if not line.startswith(("#", "case ")):
            found = re.fullmatch(r"(\w+) +(\d{1,12}\.\d) +(\d{1,12}\.\d\d)", line)
            need(found and float(found[2]) > 0, path,
                 f"{line[:80]!r} is not a case, its instructions and its allocations", again)
            rows.append((found[1], float(found[2]), float(found[3])))
    return commit[1], rows


class Series:
    """The JSON files of a folder, and the counts of its instructions.txt. Reads and checks each once."""

    def __init__(self, folder):
        self.folder = folder
        self.files = {path.stem: read_run(path) for path in sorted(folder.glob("*.json"))}
        self.compared = {name: data for name, data in self.files.items() if "runs" in data}
        if not self.compared:
            raise BadData(f"{folder}: no JSON file of a comparison: fill the folder by bench/bars.sh")
        self.counted_commit, self.counted = read_counts(folder / "instructions.txt")

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
        path = self.folder / f"{file}.json"
        for number, run in enumerate(runs, 1):
            need(figure in run, path, f"a run of {server} has no figure {figure}")
            need(is_figure(figure, run[figure]), path,
                 f"run {number} of {server} has {run[figure]!r:.80} as {figure}, not a number over 0")
        return [float(run[figure]) for run in runs]

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

    def scale_runs(self):
        """The runs of bench/scale.py."""
        return [data for name, data in self.files.items() if is_scale(name)]

    def commit(self):
        """The commit that the servers printed. commit.txt names it for files in which none printed it."""
        printed = {}
        for name, data in self.files.items():
            machine = data["machine"]
            text = "\n".join([machine["server"], *machine.get("servers", [])])
            printed[name] = re.findall(rf"^commit: ({COMMIT})$", text, re.M)
        commits = {commit for found in printed.values() for commit in found}
        silent = [f"{name}.json" for name, found in printed.items() if not found]
        noted = self.folder / "commit.txt"
        need(not commits or not silent or noted.exists(), self.folder,
             f"commit {' and '.join(sorted(commits))} in some files, but none in {', '.join(silent)}",
             "if they are of the same build, write its commit into commit.txt; else measure them again")
        if noted.exists():
            text = read_text(noted).strip()
            need(len(text) >= COMMIT_LENGTH_MIN and re.fullmatch(COMMIT, text), noted,
                 f"has {text[:80]!r}, which is no commit",
                 "write the commit of the servers into it, and nothing else")
            commits.add(text)
        if len(commits) > 1:
            raise BadData(f"{self.folder}: files of different builds: commits {' and '.join(sorted(commits))}")
        return commits.pop() if commits else None

    def all_runs(self):
        return [run for data in self.compared.values() for runs in data["runs"] for run in runs]


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
    for name, data in Series(folder).compared.items():
        command = re.sub(r"/\S*/dist/", "", data["machine"]["command"])
        command = re.sub(r"/\S*/bench/(?=[\w-]+\.sh)", "bench/", command)
        data["machine"]["command"] = re.sub(r"(--save )\S*/", r"\1", command)
        for run in (run for runs in data["runs"] for run in runs):
            run["machine"] = {name: run["machine"][name] for name in ("date", "load_before")}
        (folder / f"{name}.json").write_text(json.dumps(data, sort_keys=True) + "\n")
