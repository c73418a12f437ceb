"""The cases of the Autobahn test suite, as its package has them.

The package is written for Python 2 and for an engine of its time; the cases themselves are plain classes that speak to
a peer through a narrow interface (peer.py has it). Loaded here, their texts are bytes of Latin-1, which is what a text
of Python 2 was.
"""

import builtins
import codecs
import importlib.machinery
import importlib.util
import pathlib
import re
import sys
import types

# What Python 2 said otherwise: in which file, what, and how it is said now.
REWRITTEN = [
    (r"case.*", r"^(\s*)print\b ?(.*)$", r"\1print(\2)"),
    (r"case.*", r"binascii\.b2a_hex", "hexadecimal"),
    # Classes of old style came after `object`.
    (r"case.*", r"\(object, Case, \)", "(Case, )"),
    (r"case10_1_1", r"len\(self\.payload\) / ", "len(self.payload) // "),
    # Compression is not offered, and 9.9 is not among the cases of the suite itself.
    (r"__init__", r"^(from case(9_9_1|1[23]_x_x)|Cases\.extend\(Case1[23]|CaseSubCategories\.update\(Case1[23]).*$", ""),
]


class WebSocketProtocol:
    """The names that the cases know."""

    STATE_CLOSED, STATE_CONNECTING, STATE_CLOSING, STATE_OPEN = range(4)
    CLOSE_STATUS_CODE_NORMAL = 1000
    CLOSE_STATUS_CODE_GOING_AWAY = 1001
    CLOSE_STATUS_CODE_PROTOCOL_ERROR = 1002
    CLOSE_STATUS_CODE_INVALID_PAYLOAD = 1007


class Utf8Validator:
    """Whether a text may be the start of UTF-8, and whether it ends with a whole character."""

    def reset(self):
        self.decoder = codecs.getincrementaldecoder("utf-8")()

    def validate(self, text):
        try:
            self.decoder.decode(text.encode("latin-1"))
        except UnicodeDecodeError:
            return False, False
        return True, not self.decoder.getstate()[0]


class Loader(importlib.machinery.SourceFileLoader):
    def source_to_code(self, data, path, **options):
        text = data.decode("latin-1")
        for file, before, after in REWRITTEN:
            if re.fullmatch(file, pathlib.Path(path).stem):
                text = re.sub(before, after, text, flags=re.MULTILINE)
        return compile(text, path, "exec", dont_inherit=True)

    def get_code(self, name):
        # Past the cache of compiled files: it knows nothing of what is rewritten.
        return self.source_to_code(self.get_data(self.path), self.path)


def stand_in(name, **members):
    module = types.ModuleType(name)
    module.__dict__.update(members)
    sys.modules[name] = module


def load():
    """All cases but those of compression, in the order of the suite: their numbers and classes."""
    stand_in("autobahn")
    stand_in("autobahn.websocket")
    stand_in("autobahn.websocket.protocol", WebSocketProtocol=WebSocketProtocol)
    stand_in("autobahn.websocket.utf8validator", Utf8Validator=Utf8Validator)
    builtins.xrange, builtins.unichr = range, chr
    builtins.hexadecimal = lambda text: text.encode("latin-1").hex()
    folder = pathlib.Path(importlib.util.find_spec("autobahntestsuite").origin).parent / "case"
    finder = importlib.machinery.FileFinder(str(folder), (Loader, [".py"]))
    sys.meta_path.insert(0, types.SimpleNamespace(find_spec=lambda name, path, target=None: finder.find_spec(name)))
    spec = importlib.util.spec_from_file_location("cases", loader=Loader("cases", str(folder / "__init__.py")))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return [(case.__name__.removeprefix("Case").replace("_", "."), case) for case in module.Cases]
