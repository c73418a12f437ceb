#!/usr/bin/env python3
"""Plants faults in a copy of the sources, one at a time, and shows that the simulator finds each.

    tests/simulator/planted.py [NAME...]
    tests/simulator/planted.py --check
    tests/simulator/planted.py --sample

Ends with 1 if a fault was not found, or if its place in the sources is not there any more. `--check` looks for the
places of all faults and builds nothing. `--sample` does that, too, and plants the faults of `SAMPLE`, in one program.
One thread shows no race: that a core looks once more before it sleeps is tested with two threads in src/mailbox.

A build costs more than a run, so most faults are compiled into one program, and RINGVERB_PLANTED selects one of them.
`switched` makes that form of a fault. A fault gets a build of its own if it has no such form, or if that form does not
compile. Faults that change the same text are built in turns.

No fault is part of the usual tests. `.ci/run` calls `--check` and `--sample`, which takes about a minute. The copy is a
package of another name, so it can share a folder of builds (CARGO_TARGET_DIR, or `target`) with the tree, and
dependencies are not built again.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
from planted_faults import FAULTS, SAMPLE

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Seconds for the tests of one fault.
TIME = 900
# New seeds, for faults that the corpus does not show.
SEEDS = os.environ.get("RINGVERB_SEEDS", "2000")
NO_FAULT = 1_000_000
# The simulator uses none of these, and they take half of the time of a build.
UNUSED_MODULES = ["server", "worker", "webhook", "output", "debug_log"]
SWITCH = """
pub mod planted {
    static NUMBER: std::sync::LazyLock<u32> =
        std::sync::LazyLock::new(|| std::env::var("RINGVERB_PLANTED").unwrap().parse().unwrap());

    #[must_use]
    pub fn is(number: u32) -> bool {
        *NUMBER == number
    }
}
"""


def is_balanced(text):
    return all(text.count(one) == text.count(other) for one, other in ["()", "[]", "{}"])


def is_statement(text):
    text = text.strip()
    return is_balanced(text) and text.endswith((";", "}")) and not text.startswith("let ")


def difference(old, new):
    """What both begin with, what differs, and what both end with, by whole words."""
    one, other = (re.findall(r"\w+|\s|.", text, re.DOTALL) for text in (old, new))
    most = min(len(one), len(other))
    first = next((at for at in range(most) if one[at] != other[at]), most)
    last = next((at for at in range(most - first) if one[-1 - at] != other[-1 - at]), most - first)
    join = "".join
    return (join(one[:first]), join(one[first:len(one) - last]), join(other[first:len(other) - last]),
            join(one[len(one) - last:]))


def switched_addition(before, added, after, on):
    known = {"&& false": f"&& !{on}", "false &&": f"!{on} &&", "|| true": f"|| {on}",
             ".filter(|_| false)": f".filter(|_| !{on})", "filter(|_| false).": f"filter(|_| !{on})."}
    text = added.strip()
    if text in known:
        return before + added.replace(text, known[text]) + after
    if text.startswith("&& "):
        return f"{before}&& (!{on} || {text[3:]}) {after}"
    return f"{before}if {on} {{ {text} }}{after}" if is_statement(text) else None


def switched_removal(before, removed, after, on):
    text = removed.strip()
    if text.startswith("&& "):
        return f"{before}&& ({on} || {text[3:]}) {after}"
    if text.startswith("|| "):
        return f"{before}|| (!{on} && {text[3:]}) {after}"
    if text.endswith(" ||"):
        return f"{before}(!{on} && {text[:-3]}) || {after}"
    return f"{before}\nif !{on} {{ {text} }}{after}" if is_statement(text) else None


def switched_condition(old, new, start, end, on):
    """`start` and `end`: where the difference is in `old`."""
    begin = max((found.end() for found in re.finditer(r"\b(?:if|while) ", old[:start])), default=None)
    if begin is None or re.search(r"[{};]", old[begin:start]):
        return None
    found = re.compile(r" \{| =>|\n").search(old, end)
    if not found:
        return None
    condition, planted = old[begin:found.start()], new[begin:len(new) - (len(old) - found.start())]
    if "let " in condition or not is_balanced(condition) or not is_balanced(planted):
        return None
    return f"{old[:begin]}(if {on} {{ {planted} }} else {{ {condition} }}){old[found.start():]}"


def switched(old, new, on, is_at_line_start):
    """Text that does what `new` does where `on` is true, and else what `old` does. None: there is no such form."""
    before, one, other, after = difference(old, new)
    if not one.strip() and (form := switched_addition(before, other, after, on)):
        return form
    if not other.strip() and (form := switched_removal(before, one, after, on)):
        return form
    bound, again = (re.fullmatch(r"let (\w+) = (.*);", text, re.DOTALL) for text in (old, new))
    if bound and again and bound[1] == again[1]:
        return f"let {bound[1]} = if {on} {{ {again[2]} }} else {{ {bound[2]} }};"
    if form := switched_condition(old, new, len(before), len(old) - len(after), on):
        return form
    # An arm of a match.
    if before.endswith("=> ") and one.endswith(",") and other.startswith("{"):
        return f"{before}if {on} {other} else {{ {one[:-1]}; }},{after}"
    # Whole statements, or the value of a block.
    is_whole = is_at_line_start and is_balanced(old) and is_balanced(new)
    if is_whole and not re.match(r"let |\.|&&|\|\|", old) and " => " not in old:
        return f"if {on} {{ {new} }} else {{ {old} }}"
    # An operand, with the path that it ends.
    path = re.search(r"[\w.:]*$", before).start()
    before, one, other = before[:path], before[path:] + one, before[path:] + other
    is_operand = re.search(r"(?:[(&]|, |= |=> )$", before) and re.match(r"[),;]", after)
    if is_operand and is_balanced(one) and is_balanced(other):
        return f"{before}if {on} {{ {other} }} else {{ {one} }}{after}"
    return None


def write(path, text):
    path.write_text(text)
    # Newer than any build, even if the clock was set back: Cargo goes by it.
    soon = time.time() + 60
    os.utime(path, (soon, soon))


class Fault:
    """One row of `FAULTS`, and where it is in the sources."""

    def __init__(self, number, row, tree):
        self.number = number
        self.name, self.file, self.old, self.new = row
        text = (tree / self.file).read_text()
        self.places = text.count(self.old)
        self.start = text.find(self.old)
        self.end = self.start + len(self.old)
        crate = "crate" if self.file.startswith("src/") else "ringverb"
        is_at_line_start = not text[:self.start].rpartition("\n")[2].strip()
        self.switched = switched(self.old, self.new, f"{crate}::planted::is({number})", is_at_line_start)
        # Lines that it has where it is planted.
        self.lines = range(0)

    def overlaps(self, other):
        return self.file == other.file and self.start < other.end and other.start < self.end

    def tests(self):
        """Other simulations may find some of these too. The simulation of what the fault concerns must find them."""
        if self.name.startswith("attack: "):
            return ["attackers"]
        if self.name.startswith("http: "):
            return ["backends", "deadline", "congestion", "unfinished"]
        if self.name.startswith(("nodes: ", "backends: ")):
            return ["nodes_agree", "the_fuzzers_corpus", "new_seeds"]
        return []


class Tree:
    """The copy of the sources."""

    def __init__(self, folder):
        self.path = pathlib.Path(folder) / "tree"
        ignore = shutil.ignore_patterns("target", ".git", "node_modules", ".venv")
        shutil.copytree(ROOT, self.path, ignore=ignore)
        manifest = self.path / "Cargo.toml"
        text = re.sub(r"\[\[bin\]\]\n(?:[^\[\n].*\n)+", "", manifest.read_text())
        text = text.replace('default-run = "ringverb"\n', "autobins = false\n")
        # Cargo would take a package of the same name for the tree's, and overwrite what it has built.
        text = text.replace('name = "ringverb"\n', 'name = "ringverb-planted"\n', 1)
        text = text.replace("[lib]\n", '[lib]\nname = "ringverb"\n').replace('members = ["bench"]', "members = []")
        # Dependencies as they are built for other tests, or Cargo would build them again. The crate itself is built
        # once and runs for long.
        profile = re.search(r"\[profile\.dev\]\n(?:#.*\n)*debug = (.+)\n", text)
        debug = os.environ.get("CARGO_PROFILE_DEV_DEBUG", profile.group(1).strip('"'))
        debug = debug if debug.isdigit() or debug in ("true", "false") else f'"{debug}"'
        text = text.replace(profile.group(0), f'[profile.dev.package."*"]\ndebug = {debug}\nopt-level = 0\n\n'
                                              "[profile.dev]\ndebug = 0\nopt-level = 1\n")
        manifest.write_text(text)
        library = self.path / "src/lib.rs"
        text = library.read_text()
        for module in UNUSED_MODULES:
            text = re.sub(rf"(?:pub )?mod {module};\n(?:pub use {module}::.*;\n)?", "", text)
        library.write_text(text + SWITCH)
        self.environment = {**os.environ, "RINGVERB_SEEDS": SEEDS}
        self.environment.setdefault("CARGO_TARGET_DIR", str(ROOT / "target"))
        # Cargo.lock names the packages of the tree: Cargo renames and removes them, and asks no registry.
        self.environment["CARGO_NET_OFFLINE"] = "true"

    def build(self, faults, are_switched):
        """Plants these, builds, and takes them out again: the test program, or errors as file, line and text."""
        originals = {file: (self.path / file).read_text() for file in {fault.file for fault in faults}}
        for file, text in originals.items():
            for fault in sorted((fault for fault in faults if fault.file == file), key=lambda fault: -fault.start):
                planted = fault.switched if are_switched else fault.new
                text = text[:fault.start] + planted + text[fault.end:]
            write(self.path / file, text)
            shift = 0
            for fault in sorted((fault for fault in faults if fault.file == file), key=lambda fault: fault.start):
                planted = fault.switched if are_switched else fault.new
                first = 1 + text.count("\n", 0, fault.start + shift)
                fault.lines = range(first, first + planted.count("\n") + 1)
                shift += len(planted) - len(fault.old)
        command = ["cargo", "test", "--test", "simulator", "--no-run", "--message-format=json"]
        build = subprocess.run(command, cwd=self.path, env=self.environment, capture_output=True, text=True)
        for file, text in originals.items():
            write(self.path / file, text)
        messages = [json.loads(line) for line in build.stdout.splitlines() if line.startswith("{")]
        if build.returncode == 0:
            return next(message["executable"] for message in messages if message.get("executable")), []
        errors = [message["message"] for message in messages if message["reason"] == "compiler-message"]
        places = [(span["file_name"], span["line_start"], error["message"])
                  for error in errors if error["level"] == "error" for span in error["spans"]]
        return None, places or [("", 0, build.stderr)]

    def run(self, program, number, tests):
        """What becomes of a fault, and what shows it."""
        start = time.monotonic()
        environment = {**self.environment, "RINGVERB_PLANTED": str(number), "RUST_BACKTRACE": "0"}
        try:
            run = subprocess.run([program, *tests], cwd=self.path, env=environment, capture_output=True, text=True,
                                 timeout=TIME)
        except subprocess.TimeoutExpired:
            # Nothing has failed, so nothing has shown the fault.
            return "NO END", f"{TIME} s"
        seconds = f"{time.monotonic() - start:.0f} s"
        if run.returncode == 0:
            return "MISSED", seconds
        failed = re.findall(r"^    (\S+)$", run.stdout, re.MULTILINE)
        seeds = re.findall(r"^seed \d+ fails", run.stdout, re.MULTILINE)
        return "found", ", ".join([seconds, *sorted({*failed, *seeds})[:4]])


class Planting:
    def __init__(self, tree, is_sample):
        self.tree = tree
        # The simulator has just passed without a fault, and a fault without a switch would need a build of its own.
        self.is_sample = is_sample
        self.missed = 0

    def note(self, fault, verdict, why):
        self.missed += verdict != "found"
        print(f"{verdict:9} {fault.name} ({why})", flush=True)

    def try_together(self, faults):
        """Builds these into one program and tries each. Returns those that do not compile so."""
        alone = []
        while True:
            program, errors = self.tree.build(faults, True)
            if program:
                break
            bad = [fault for fault in faults
                   if any(file == fault.file and line in fault.lines for file, line, _ in errors)]
            if not bad:
                raise SystemExit(f"the sources do not compile: {errors[0]}")
            alone += bad
            faults = [fault for fault in faults if fault not in bad]
        if not self.is_sample:
            verdict, why = self.tree.run(program, NO_FAULT, [])
            if verdict != "MISSED":
                raise SystemExit(f"the simulator fails without a fault: {why}")
        for fault in faults:
            self.note(fault, *self.tree.run(program, fault.number, fault.tests()))
        return alone

    def try_alone(self, fault):
        """Builds one as it is written and tries it."""
        program, errors = self.tree.build([fault], False)
        if program:
            self.note(fault, *self.tree.run(program, fault.number, fault.tests()))
        else:
            self.note(fault, "NO BUILD", errors[0][2])


def places_are_there():
    """Whether each fault's text is in its file, once."""
    found = True
    for name, file, old, _ in FAULTS:
        path = ROOT / file
        places = path.read_text().count(old) if path.exists() else 0
        if places != 1:
            found = False
            print(f"NO PLACE  {name} ({file} has {places} of it)")
    names = {name for name, *_ in FAULTS}
    for name in SAMPLE:
        if name not in names:
            found = False
            print(f"NO FAULT  {name} (of SAMPLE)")
    return found


def main():
    wanted = sys.argv[1:]
    if {"-h", "--help"} & set(wanted):
        print(__doc__)
        return
    if wanted in (["--check"], ["--sample"]):
        if not places_are_there():
            sys.exit(1)
        if wanted == ["--check"]:
            return
        wanted = SAMPLE
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        tree = Tree(folder)
        planting = Planting(tree, wanted is SAMPLE)
        turns, alone = [], []
        for number, row in enumerate(FAULTS):
            if wanted and not any(word in row[0] for word in wanted):
                continue
            fault = Fault(number, row, tree.path)
            if fault.places != 1:
                planting.note(fault, "NO PLACE", f"{fault.file} has {fault.places} of it")
            elif fault.switched is None:
                alone.append(fault)
            else:
                free = (turn for turn in turns if not any(fault.overlaps(other) for other in turn))
                turn = next(free, None)
                if turn is None:
                    turn = []
                    turns.append(turn)
                turn.append(fault)
        for turn in turns:
            alone += planting.try_together(turn)
        for fault in alone:
            planting.try_alone(fault)
    sys.exit(1 if planting.missed else 0)


if __name__ == "__main__":
    main()
