"""The cases of the Autobahn test suite, which are Python 2, as Python 3 modules.

What makes them Python 2 is little, and it is mended while they are loaded; the installed files stay as they are:

- A string of Python 2 is bytes. Here it is text with a character for each byte (Latin-1), also what the source holds of
  UTF-8; `fuzz.py` turns such text into bytes where it leaves, and bytes into such text where they come in.
- `print`, `xrange`, `/` between whole numbers, classes that derive from `object` first.
- The cases of compression, 12 and 13, are left out: the server negotiates no extension.

Each mend says how often it must be found, so a suite of another version is an error and not a suite with fewer cases.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import pathlib
import re
import sys

COMPRESSION = r"(?m)^.*(?:[cC]ase12_[xX]_[xX]|Case13_X_X).*$"
UNMIXED = (r"\(object, Case, ?\)", "(Case,)")

# By file: what is found, what stands there then, how often.
MENDS = {
    "__init__": [(COMPRESSION, "", 5)],
    # Pickled, equal values differ in Python 3 when a string is the same object twice.
    "case": [(r"pickle\.dumps\(obj1\) == pickle\.dumps\(obj2\)", "obj1 == obj2", 1)],
    "case6_x_x": [(r"(?m)^( *)print\b.*$", r"\1pass", 11), (*UNMIXED, 1)],
    "case7_7_X": [(*UNMIXED, 1)],
    "case7_9_X": [(*UNMIXED, 1)],
    "case9_7_X": [(*UNMIXED, 1)],
    # Never run, nor can it be loaded any more.
    "case9_9_1": [(r"implements\(interfaces\.IPushProducer\)", "pass", 1),
                  (r"(?m)^from zope\.interface import implements$", "", 1)],
    "case10_1_1": [(r"len\(self\.payload\) / ", "len(self.payload) // ", 1)],
}
EVERYWHERE = [
    (r"\bxrange\b", "range"),
    (r"\bimport binascii\b", "import octets as binascii"),
    (r"\bfrom autobahn\.websocket\.utf8validator import Utf8Validator\b", "from octets import Utf8Validator"),
]


class Loader(importlib.machinery.SourceFileLoader):
    """Compiles a mended copy of a file, which is nowhere kept."""

    def get_code(self, fullname):
        source = pathlib.Path(self.path).read_bytes().decode("latin-1")
        stem = pathlib.Path(self.path).stem
        for pattern, mended, times in MENDS.get(stem, []):
            source, count = re.subn(pattern, mended, source)
            if count != times:
                raise ImportError(f"{self.path}: {pattern!r} is there {count} times, not {times}")
        for pattern, mended in EVERYWHERE:
            source = re.sub(pattern, mended, source)
        return compile(source, self.path, "exec", dont_inherit=True)


class Finder(importlib.abc.MetaPathFinder):
    """The cases import each other by name alone, as Python 2 let them."""

    def __init__(self, folder):
        self.folder = folder

    def find_spec(self, name, path, target=None):
        file = self.folder / f"{name}.py"
        if name.startswith("case") and file.is_file():
            return importlib.util.spec_from_file_location(name, file, loader=Loader(name, str(file)))
        return None


def load():
    """The classes of all cases by their number, such as "1.1.1", in the suite's order."""
    installed = importlib.util.find_spec("autobahntestsuite")
    if installed is None:
        raise SystemExit("the Autobahn test suite is not installed: use tests/autobahn/run")
    folder = pathlib.Path(installed.origin).parent / "case"
    sys.meta_path.insert(0, Finder(folder))
    file = str(folder / "__init__.py")
    spec = importlib.util.spec_from_file_location("cases", file, loader=Loader("cases", file))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    numbered = {case.__name__.removeprefix("Case").replace("_", "."): case for case in module.Cases}
    assert len(numbered) == len(module.Cases), "two cases have the same number"
    return numbered
