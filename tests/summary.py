"""The table at the end of tests/run: for each kind of test how many passed and failed, and how long they took.

    summary.py RUST_LOG AUTOBAHN_LOG NODE_LOG PYTHON_LOG

Reads what the test programs printed. A log without a result counts as one failure, so that a kind of tests that did not
run, or whose output has another form, cannot pass for one without failures. Exits with 1 if anything failed.
"""

import dataclasses
import pathlib
import re
import sys

ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


@dataclasses.dataclass
class Kind:
    name: str
    passed: int = 0
    failed: int = 0
    seconds: float = 0.0

    def add(self, passed, failed, seconds=0.0):
        self.passed += int(passed)
        self.failed += int(failed)
        self.seconds += float(seconds)


def rust(text):
    """Cargo names a test program, and then the program prints its result."""
    kinds = {name: Kind(name) for name in ("Rust: unit and property", "Rust: simulator", "Rust: whole server")}
    now = "Rust: unit and property"
    results = 0
    for line in text.splitlines():
        if found := re.match(r"\s+Running (unittests )?(\S+)|\s+Doc-tests ()", line):
            if found[1] or found[2] is None:
                now = "Rust: unit and property"
            else:
                now = "Rust: simulator" if "simulator" in found[2] else "Rust: whole server"
        elif found := re.match(r"test result: \w+\. (\d+) passed; (\d+) failed;.*finished in ([\d.]+)s", line):
            kinds[now].add(*found.groups())
            results += 1
    # A program that a signal ended, or that did not compile, has no result.
    broken = "could not compile" in text or "process didn't exit successfully" in text
    failed = sum(kind.failed for kind in kinds.values())
    if results == 0 or (broken and failed == 0):
        kinds[now].add(0, 1)
    return list(kinds.values())


def one(name, text, passed, failed, seconds=None):
    """A program that prints its counts once. `failed` may be missing where none failed."""
    kind = Kind(name)
    counted = re.findall(passed, text)
    if not counted:
        kind.add(0, 1)
        return [kind]
    failures = sum(int(count) for count in re.findall(failed, text))
    kind.add(int(counted[-1]), failures)
    if seconds:
        kind.seconds = sum(float(found) for found in re.findall(seconds, text))
    return [kind]


def python(text):
    counts, seconds = r"(?m)^Ran (\d+) tests? in", r"(?m)^Ran \d+ tests? in ([\d.]+)s"
    [kind] = one("clients: Python", text, counts, r"(?:failures|errors)=(\d+)", seconds)
    if kind.passed:
        kind.passed -= kind.failed
    return [kind]


def node(text):
    counts, failures = r"(?m)^ℹ pass (\d+)", r"(?m)^ℹ (?:fail|cancelled) (\d+)"
    [kind] = one("clients: Node", text, counts, failures, r"(?m)^ℹ duration_ms ([\d.]+)")
    kind.seconds /= 1_000
    return [kind]


def autobahn(text):
    counts, failures = r"Autobahn: (\d+) passed", r"Autobahn: \d+ passed, (\d+) failed"
    return one("RFC 6455: Autobahn", text, counts, failures, r"\(([\d.]+) s\)")


def main(paths):
    texts = [ESCAPES.sub("", pathlib.Path(path).read_text(errors="replace")) for path in paths]
    kinds = [kind for read, text in zip((rust, autobahn, node, python), texts, strict=True) for kind in read(text)]
    total = Kind("all")
    print(f"  {'':26}{'passed':>8}{'failed':>8}{'seconds':>10}")
    for kind in kinds:
        total.add(kind.passed, kind.failed, kind.seconds)
    for kind in [*kinds, total]:
        print(f"  {kind.name:26}{kind.passed:>8,}{kind.failed:>8,}{kind.seconds:>10,.0f}")
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
