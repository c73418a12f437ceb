#!/usr/bin/env python3
"""The tables of RESULTS.md, made from the raw data of one series, and the figures of it that other documents cite.

    bench/tables.py [FOLDER]            prints the tables
    bench/tables.py [FOLDER] --write    writes them into RESULTS.md and SCALE.md, and the cited figures (cited.txt)
    bench/tables.py [FOLDER] --check    lists what differs in these documents; exit code 1 if anything does
    bench/tables.py FOLDER --strip      removes paths of this machine and repeated facts from the raw data

FOLDER has the JSON files of bench/bars.sh. It may have those of bench/scale.py, and the output of
bench/instructions.sh as instructions.txt. A bar without its file is "not in this series". The default is the folder
that RESULTS.md names. Exit code 1 if documents differ, or lack a place for a figure. Exit code 2 if raw data or
documents cannot be read, are damaged, or are of different machines or builds.
"""

import argparse
import dataclasses
import pathlib
import statistics
import sys
from fractions import Fraction

sys.dont_write_bytecode = True
import cited
from series import CYCLE, DELIVERY, FANOUT_1, FANOUT_16, HANDSHAKE, IDLE_CPU, MEMORY, MEMORY_CONNECTED, REQUEST
from series import SUBSCRIPTION, BadData, Series, by_round, median, short, spread, strip, unit_of

P50, P99 = (f"20_per_s_schedule_to_each_delivery_{part}_ms" for part in ("p50", "p99"))


@dataclasses.dataclass(frozen=True)
class Bar:
    """A row of decision 9. Each round's ratio, or the value itself without `to`, is at most `limit`."""

    what: str
    bar: str
    file: str
    figure: str
    limit: str
    # ("figure", NAME, LABEL): of the same run. ("server", NAME): its run in the same round. ("peers",): the best peer
    # of the file. ("reference", NAME, VALUE): the best other server in decision 9.
    to: tuple = ()
    server: str = "ringverb"


def best_other(what, limit, file, figure, reference):
    """A bar against the best other server is judged twice: in the same runs, and against decision 9."""
    bar = {"1": "no worse than"}.get(limit, f"at most {limit} of")
    return [
        Bar(what, f"{bar} the best other server", file, figure, limit, ("peers",)),
        Bar(what, f"{bar} the best other server in decision 9", file, figure, limit, ("reference", *reference)),
    ]


FANOUT = "fan-out to 5,000, 64 B, {} in flight: CPU per delivery"
ROOMS = "rooms of 10, client events, saturated: CPU per delivery"
POST = "signed POST on {}: CPU per request"
BARS = [
    Bar(FANOUT.format("one"), "at most 1.25 x floor", "fanout", FANOUT_1, "1.25",
        ("figure", f"floor_{FANOUT_1}", "floor")),
    Bar(FANOUT.format(16), "at most 0.35 x one in flight", "fanout", FANOUT_16, "0.35",
        ("figure", FANOUT_1, "one in flight")),
    *best_other(FANOUT.format(16), "1/5", "fanout", FANOUT_16, ("sockudo 2.9.2", 6.1)),
    *best_other(ROOMS, "1/3", "rooms", DELIVERY, ("soketi", 12.6)),
    *best_other("`POST /events`, 16 connections: CPU per request", "1/3", "publish", REQUEST, ("sockudo 2.9.2", 24)),
    Bar(POST.format("16 kept connections"), "at most 1.15 x `http-floor`", "publish", REQUEST, "1.15",
        ("server", "floor")),
    *best_other("churn: CPU per cycle", "1/2", "churn", CYCLE, ("soketi", 120)),
    Bar("idle connection with a private channel: user memory", "at most 512 B", "idle", MEMORY, "512"),
    Bar("CPU over 10 s with 15,000 idle connections", "at most 40 ms", "idle", IDLE_CPU, "40"),
    *best_other("fan-out to 1,000 at 20 events/s: p50", "1/2", "fanout-rate", P50, ("soketi", 7)),
    *best_other("fan-out to 1,000 at 20 events/s: p99", "1/2", "fanout-rate", P99, ("soketi", 16)),
    *best_other("rooms at 2,000 events/s: p99", "1", "rooms-rate", "schedule_to_delivery_p99_ms",
                ("sockudo 2.9.2", 0.4)),
    Bar("rooms: total CPU per delivery, two workers", "at most 1.15 x one worker", "workers", DELIVERY, "1.15",
        ("server", "one-worker"), "two-workers"),
    *[Bar(POST.format(f"a new connection each, {io}"), "at most 0.9 x nginx with `return 200`", "new-connections",
          REQUEST, "0.9", ("server", "nginx"), io) for io in ("io_uring", "epoll")],
    Bar(f"{FANOUT.format('one')}, epoll", "at most 1.25 x io_uring", "kernels-fanout", FANOUT_1, "1.25",
        ("server", "io_uring"), "epoll"),
    Bar("rooms of 10, saturated: CPU per delivery, epoll", "at most 1.25 x io_uring", "kernels-rooms", DELIVERY, "1.25",
        ("server", "io_uring"), "epoll"),
]

# What, the floor in words, file, figure, and the floor: a figure of the same run, or a server of the file.
FLOORS = [
    ("fan-out to 5,000, one in flight, a delivery", "a bare loop of `send(2)` to equal sockets", "fanout", FANOUT_1,
     f"floor_{FANOUT_1}"),
    ("fan-out to 5,000, 16 in flight, a delivery", "the same, a send for each frame", "fanout", FANOUT_16,
     f"floor_{FANOUT_16}"),
    ("`POST /events` on 16 kept connections, a request", "`http-floor`: receives, answers 200", "publish", REQUEST,
     None),
    ("a handshake", "`handshake-floor --defer-accept`: accepts, reads, answers, watches", "handshakes",
     HANDSHAKE, None),
]

# Figures without a bar.
COSTS = [
    ("a handshake, µs of CPU", "idle", HANDSHAKE),
    ("a private subscription, µs of CPU", "idle", SUBSCRIPTION),
    ("an idle connection without a subscription, B of user memory", "idle", MEMORY_CONNECTED),
    ("an idle connection, subscribed, before the quiet 10 s, B", "idle", "RSS_growth_per_connection_subscribed_B"),
    ("a request with one delivery (`publish --subscribers 1`), µs of CPU", "publish-checked", REQUEST),
    ("fan-out to 1,000 at 20 events/s, a delivery, µs of CPU", "fanout-rate", "20_per_s_server_CPU_per_delivery_us"),
    ("rooms at 2,000 events/s, a delivery, µs of CPU", "rooms-rate", DELIVERY),
    ("fan-out to 5,000, one in flight, deliveries/s", "fanout", "1_in_flight_deliveries_1_per_s"),
    ("fan-out to 5,000, 16 in flight, deliveries/s", "fanout", "16_in_flight_deliveries_1_per_s"),
    ("rooms, saturated, deliveries/s", "rooms", "deliveries_1_per_s"),
    ("`POST /events` on 16 connections, requests/s", "publish", "requests_1_per_s"),
    ("churn, cycles/s", "churn", "cycles_1_per_s"),
]

# Saturated runs: file, prefix of the figures.
BUSY = [
    ("fan-out to 5,000, one in flight", "fanout", "1_in_flight_"),
    ("fan-out to 5,000, 16 in flight", "fanout", "16_in_flight_"),
    ("rooms of 10, saturated", "rooms", ""),
    ("`POST /events`, 16 connections", "publish", ""),
    ("`POST /events`, one delivery each", "publish-checked", ""),
    ("churn", "churn", ""),
]
# Open loops: file, the client's lateness, the latency.
LATE = [
    ("fan-out to 1,000 at 20 events/s", "fanout-rate", "20_per_s_schedule_to_request_client_s_lateness_p99_ms",
     P99),
    ("rooms at 2,000 events/s", "rooms-rate", "schedule_to_sending_client_s_lateness_p99_ms",
     "schedule_to_delivery_p99_ms"),
]

OPERATIONS = {
    "frame_header_decode": "decode the header of a frame",
    "frame_read_100_bytes": "read a frame of 100 bytes, with its unmasking",
    "frame_encode_100_bytes": "encode a frame of 100 bytes",
    "unmask_64_bytes": "unmask 64 bytes",
    "unmask_4096_bytes": "unmask 4,096 bytes",
    "parse_client_event": "parse a client event",
    "parse_subscribe": "parse a subscribe message",
    "encode_event": "encode an event",
    "signature_check": "check a signature",
    "publish_request": "a signed `POST /events`: parse, check, encode, answer",
    "fan_out_to_1000": "a delivery of a fan-out to 1,000",
    "flush_to_1000": "the same with gather, send and settle; the kernel does nothing",
    "churn_of_one_connection": "a connection that joins and leaves three channels",
    "handshake": "a handshake: accept, parse, answer, end",
    "channel_lookup_in_10000": "a publish to one of 10,000 channels",
    "ring_transfer_of_256": "one of 256 mails through a ring",
    "timer_wheel_of_10000": "an entry of a timer wheel of 10,000, with its three pongs",
}


def verdict(values, limit):
    met = sum(value <= limit for value in values)
    if met == len(values):
        return "met"
    if met == 0:
        return "**not met**"
    by_median = "met" if statistics.median(values) <= limit else "**not met**"
    return f"{by_median} by the median, met in {met} of {len(values)} rounds"


def row(*cells):
    return "| " + " | ".join(cells) + " |"


def table(head, rows, left=1):
    return [row(*head), "|" + "---|" * left + "---:|" * (len(head) - left), *rows]


def row_of_bar(series, bar):
    values = series.values(bar.file, bar.server, bar.figure)
    unit = unit_of(bar.figure)
    limit = float(Fraction(bar.limit))
    if values is None:
        return row(bar.what, bar.bar, "not in this series", "", "", "")
    match bar.to:
        case ():
            return row(bar.what, bar.bar, spread(values, unit), "", "", verdict(values, limit))
        case ("reference", name, value):
            label, others = f"{name} {value}{unit}, decision 9", [value] * len(values)
        case ("figure", name, label):
            others = series.values(bar.file, bar.server, name)
            label = f"{label} {median(others, unit)}"
        case ("server", name):
            others = series.values(bar.file, name, bar.figure)
            label = others and f"{name} {median(others, unit)}"
        case ("peers",):
            label, others = series.best_peer(bar.file, bar.figure) or (None, None)
            label = label and f"{label} {median(others, unit)}"
    if not others:
        return row(bar.what, bar.bar, spread(values, unit), "not in this series", "", "")
    ratios = by_round(values, others)
    return row(bar.what, bar.bar, spread(values, unit), label, spread(ratios), verdict(ratios, limit))


def bars(series):
    head = ("what", "bar", "ringverb", "compared with", "ratio", "result")
    return table(head, [row_of_bar(series, bar) for bar in BARS], left=len(head))


def floors(series):
    rows = []
    for what, words, file, figure, of_run in FLOORS:
        values = series.values(file, "ringverb", figure)
        bare = values and series.values(file, *(("ringverb", of_run) if of_run else ("floor", figure)))
        if not bare:
            rows.append(row(what, words, "not in this series", "", "", ""))
            continue
        peer = series.values(file, "soketi", figure)
        peer_bare = series.values(file, "soketi", of_run) if of_run else bare
        rows.append(row(what, words, spread(bare, " µs"), spread(values, " µs"), spread(by_round(values, bare)),
                        spread(by_round(peer, peer_bare)) if peer else "-"))
    return table(("what", "the floor", "its CPU", "ringverb", "ringverb / floor", "soketi / floor"), rows, left=2)


def costs(series):
    rows = []
    for what, file, figure in COSTS:
        values, peer = (series.values(file, server, figure) for server in ("ringverb", "soketi"))
        if values and peer:
            rows.append(row(what, spread(values), spread(peer), spread(by_round(values, peer))))
        elif values:
            rows.append(row(what, spread(values), "-", "-"))
    return table(("what", "ringverb", "soketi", "ringverb / soketi"), rows)


def limits_of_runs(series):
    """Whether server or client was the limit of a saturated run: above 95 % it was busy."""
    rows = []
    for what, file, prefix in BUSY:
        for server in ("ringverb", "soketi"):
            busy, client = (series.values(file, server, f"{prefix}{end}_busy_percent") for end in ("server", "client"))
            if busy:
                is_busy = [statistics.median(one) > 95 for one in (busy, client)]
                limits = {(True, True): "both", (True, False): "server", (False, True): "client"}
                limit = limits.get(tuple(is_busy), "neither")
                rows.append(row(what, server, spread(busy, " %"), spread(client, " %"), limit))
    return table(("saturated run", "server", "server busy", "client busy", "limit (over 95 % busy)"), rows, left=2)


def lateness(series):
    rows = []
    for what, file, late, latency in LATE:
        for server in ("ringverb", "soketi"):
            values, latencies = (series.values(file, server, figure) for figure in (late, latency))
            if values:
                rows.append(row(what, server, spread(latencies, " ms"), spread(values, " ms")))
    return table(("open loop", "server", "latency, p99", "of it the client's own lateness, p99"), rows, left=2)


def counts(series):
    counted = series.counted
    if series.counted_commit is None:
        return ["Not counted in this series."]
    cases = [case for case, _, _ in counted]
    unknown = [case for case in cases if case not in OPERATIONS]
    if unknown:
        raise BadData(f"instructions.txt: {', '.join(unknown)}: add the case to OPERATIONS in bench/tables.py")
    wrong = [case for case in OPERATIONS if cases.count(case) != 1]
    if wrong:
        raise BadData(f"instructions.txt: not one line each of {', '.join(wrong)}: count all by bench/instructions.sh")
    rows = [row(OPERATIONS[case], f"`{case}`", f"{count:,.0f}", f"{allocations:.2f}".removesuffix(".00"))
            for case, count, allocations in counted]
    noted = [f"Counted at commit {series.counted_commit}.", ""]
    return noted + table(("operation", "case", "instructions", "allocations"), rows, left=2)


def facts(series):
    runs = series.all_runs()
    starts = sorted(run["machine"]["date"] for run in runs)
    loads = [float(run["machine"]["load_before"].split()[0]) for run in runs]
    first, last = starts[0], starts[-1]
    until = last[11:16] if first[:10] == last[:10] else last[:16]
    runs += [data for data in series.files.values() if "runs" not in data]
    violations = sum(run["violations"] for run in runs)
    rounds = " or ".join(sorted({str(data["rounds"]) for data in series.compared.values()}))
    rows = [
        row("first and last start of a run", f"{first[:16]} to {until} UTC"),
        row("ringverb", f"commit {series.commit() or 'not recorded'}, profile `dist`"),
        row("machine", f"{series.fact('cores')} cores ({series.fact('CPU')}), {series.fact('memory')}, "
                       f"Linux {series.fact('kernel').split('-')[0]}"),
        row("load of the machine before a run (1 minute)", f"{short(min(loads))} to {short(max(loads))}"),
        row("rounds", rounds),
        row("violations", f"{violations} in {len(runs)} runs"),
        row("raw data", f"[{series.folder.name}](results/{series.folder.name}/)"),
    ]
    return table(("", ""), rows, left=2)


def results(series):
    """What stands between the marks in RESULTS.md."""
    parts = [
        (None, facts),
        ("Against the bars", bars),
        ("Beside the floors", floors),
        ("Costs and rates without a bar", costs),
        ("What limited the runs", limits_of_runs),
        (None, lateness),
        ("Instructions of the hot paths", counts),
    ]
    lines = []
    for heading, part in parts:
        lines += ([f"## {heading}", ""] if heading else []) + part(series) + [""]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path, nargs="?")
    action = parser.add_mutually_exclusive_group()
    for name in ("--write", "--check", "--strip"):
        action.add_argument(name, action="store_true")
    parser.add_argument("--documents", type=pathlib.Path, default=cited.BENCH.parent, help="root of the documents")
    options = parser.parse_args()
    folder = options.folder and options.folder.resolve()
    if options.strip:
        return strip(folder or parser.error("--strip needs FOLDER"))
    series = Series(folder or cited.folder_of_results(options.documents))
    if not (options.write or options.check):
        return print(results(series), end="")
    if series.folder.parent != cited.BENCH / "results":
        raise BadData(f"{series.folder}: documents cite folders of bench/results only: move it there")
    documents = cited.documents_of(series, options.documents, results(series))
    if options.check:
        return "\n".join(documents.differing()) or None
    documents.write()
    return "\n".join(documents.problems) or None


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (BadData, OSError) as error:
        print(f"tables.py: {error}", file=sys.stderr)
        sys.exit(2)
