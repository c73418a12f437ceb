"""Writes the figures of a series into the documents: the tables between marks, and the sentences of cited.txt."""

import pathlib
import re
import statistics

import scale
from series import FANOUT_1, FANOUT_16, HANDSHAKE, IDLE_CPU, MEMORY, MEMORY_CONNECTED, REQUEST, SUBSCRIPTION
from series import BadData, by_round, read_text, short

BENCH = pathlib.Path(__file__).resolve().parent
BEGIN = "<!-- begin: bench/tables.py {} -->"
END = "<!-- end: bench/tables.py -->"
# Memory of the kernel for the poll of one socket in a ring.
POLL_BYTES = 256
# Files that cite counts of instructions, each with its case.
COUNTED = ("ARCHITECTURE.md", "src/ws/reader.rs", "src/shard/local/subscribe.rs")


def folder_of_results(root):
    found = re.search(re.escape(BEGIN).replace(r"\{\}", r"(\S+)"), read_text(root / "bench/RESULTS.md"))
    if not found:
        raise BadData("bench/RESULTS.md names no folder: give one")
    return BENCH.parent / found[1]


def figures(series):
    """The figures that documents cite, by name: those of comparisons are medians."""
    date = min(run["machine"]["date"] for run in series.all_runs())[:10]
    commit = series.commit()
    if not commit:
        raise BadData(f"{series.folder}: the servers printed no commit: write it into commit.txt")
    found = {"commit": commit, "date": date}
    if series.counted:
        found["counted_folder"] = series.folder.name

    def add(name, file, figure, server="ringverb"):
        values = series.values(file, server, figure)
        if values:
            for ending, value in (("", statistics.median(values)), (".least", min(values)), (".greatest", max(values))):
                found[name + ending] = value

    add("fanout_1", "fanout", FANOUT_1)
    add("fanout_1_floor", "fanout", f"floor_{FANOUT_1}")
    add("fanout_16", "fanout", FANOUT_16)
    add("fanout_16_floor", "fanout", f"floor_{FANOUT_16}")
    add("publish", "publish", REQUEST)
    add("publish_floor", "publish", REQUEST, "floor")
    add("handshake", "idle", HANDSHAKE)
    add("subscription", "idle", SUBSCRIPTION)
    add("idle_cpu_ms", "idle", IDLE_CPU)
    add("memory", "idle", MEMORY)
    add("memory_connected", "idle", MEMORY_CONNECTED)
    add("new_connection", "new-connections", REQUEST, "io_uring")
    pair = [series.values("new-connections", server, REQUEST) for server in ("io_uring", "nginx")]
    if all(pair):
        found["new_connection_to_nginx"] = statistics.median(by_round(*pair))
    add_scale(series, found)
    return found


def add_scale(series, found):
    """Figures of the runs with many connections, if the folder has them."""
    runs = series.scale_runs()
    if not runs:
        return

    def spread_of(name, figure):
        values = [run[figure] for run in runs]
        found[f"{name}.least"], found[f"{name}.greatest"] = min(values), max(values)

    spread_of("scale_connected", MEMORY_CONNECTED)
    spread_of("scale_memory", "RSS_growth_per_connection_subscribed_B")
    spread_of("scale_handshake", HANDSHAKE)
    spread_of("scale_subscription", SUBSCRIPTION)
    found["scale_folder"] = series.folder.name
    most = max(runs, key=lambda run: run["connections"])
    millions = most["connections"] / 1e6
    memory, connected = (most[f"RSS_growth_per_connection_{when}_B"] for when in ("subscribed", "connected"))
    # The host has both sockets of a connection, and one poll.
    kernel = (most["kernel_slab_growth_per_connection_both_ends_subscribed_B"] - POLL_BYTES) / 2 + POLL_BYTES
    found |= {
        "most_memory": memory,
        "most_memory_gb": memory * millions / 1000,
        "most_connected": connected,
        "most_connected_gb": connected * millions / 1000,
        "most_channel": memory - connected,
        "most_resident_gb": most["RSS_subscribed_KiB"] * 1024 / 1e9,
        "most_kernel_kb": kernel / 1000,
        "most_together_kb": (kernel + memory) / 1000,
        "plan_kb": (kernel + found["scale_memory.greatest"]) / 1000,
        "accepts_8_per_s": round(8e6 / found["scale_handshake.greatest"], -4),
    }
    for end in ("least", "greatest"):
        seconds = (found[f"scale_handshake.{end}"] + found[f"scale_subscription.{end}"]) * millions
        found |= {f"reconnect_s.{end}": seconds, f"reconnect_8_s.{end}": seconds / 8}


class Documents:
    """The documents below a root, as they are and as they should be."""

    def __init__(self, root, series):
        self.root, self.series = root, series
        self.before, self.after = {}, {}
        self.problems, self.notes = [], []

    def text(self, name):
        if name not in self.after:
            self.after[name] = self.before[name] = read_text(self.root / name)
        return self.after[name]

    def fill(self, name, inner):
        """Replaces what is between the marks."""
        text = self.text(name)
        begin = re.search(re.escape(BEGIN).replace(r"\{\}", r"\S+"), text)
        end = text.find(END)
        if not begin or end < begin.end():
            self.problems.append(f"{name}: the marks of bench/tables.py are missing")
            return
        mark = BEGIN.format(f"bench/results/{self.series.folder.name}")
        self.after[name] = f"{text[: begin.start()]}{mark}\n\n{inner.rstrip()}\n\n{text[end:]}"

    def cite(self, name, template, known):
        """Replaces the figures in one sentence. A figure that the series lacks stays as it is."""
        places = re.findall(r"\{([\w.]+)(?::([^}]*))?\}", template)
        if any(place not in known for place, _ in places):
            self.notes.append(f"{name}: not of this series, so its sentence must name the source: {template}")
            return
        pieces = re.split(r"\{[^}]*\}", template)
        # A sentence may be broken into lines anywhere.
        pieces = [r"\s+".join(map(re.escape, re.split(r"\s+", piece))) for piece in pieces]
        pattern = pieces[0] + "".join(rf"(\S+?){piece}" for piece in pieces[1:])
        found = list(re.finditer(pattern, self.text(name)))
        if len(found) != 1:
            self.problems.append(f"{name}: has this {len(found)} times, not once (bench/cited.txt): {template}")
            return
        text = self.text(name)
        for number, (place, form) in reversed(list(enumerate(places, 1))):
            value = known[place]
            shown = value if isinstance(value, str) else format(value, form) if form else short(value)
            text = text[: found[0].start(number)] + shown + text[found[0].end(number) :]
        self.after[name] = text

    def fix_counts(self, name):
        """`1,118 instructions (`case`)`: the count of that case."""
        counted = {case: f"{count:,.0f}" for case, count, _ in self.series.counted}
        found = re.compile(r"([\d,]+)( instructions \(`(\w+)`)")
        self.after[name] = found.sub(lambda hit: counted.get(hit[3], hit[1]) + hit[2], self.text(name))

    def differing(self):
        """Lines that are not as the raw data have them."""
        found = list(self.problems)
        for name, before in self.before.items():
            was, is_now = before.splitlines(), self.after[name].splitlines()
            for number, line in enumerate(was, 1):
                if line not in is_now:
                    found.append(f"{name}:{number}: {line}")
            if before != self.after[name] and not any(text.startswith(f"{name}:") for text in found):
                found.append(f"{name}: lines are missing between the marks")
        return found

    def write(self):
        for name, text in self.after.items():
            if text != self.before[name]:
                (self.root / name).write_text(text)
                print(f"{name} is written")
        print("\n".join(self.notes))


def documents_of(series, root, tables):
    """All documents that cite the series, with its figures in them."""
    documents = Documents(root, series)
    documents.fill("bench/RESULTS.md", tables)
    if series.scale_runs():
        documents.fill("bench/SCALE.md", scale.table_of(series.scale_runs()))
    known = figures(series)
    for line in read_text(BENCH / "cited.txt").splitlines():
        if line and not line.startswith("#"):
            name, template = line.split(": ", 1)
            documents.cite(name, template, known)
    for name in COUNTED:
        documents.fix_counts(name)
    return documents
