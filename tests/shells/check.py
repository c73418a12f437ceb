"""Completions below a prefix, in real shells: check.py PREFIX.

A shell runs in a terminal of its own. The test types a part of a word and the Tab key, and reads what the shell shows.
Each shell finds the completions where it looks for those of an installation.
"""

import os
import pathlib
import pty
import re
import select
import subprocess
import sys
import tempfile
import time
import unittest

PREFIX = pathlib.Path(sys.argv[1]).resolve()
# Shells write into the folder of their user.
HOME = tempfile.TemporaryDirectory()
SECONDS = 30
PROMPT = "<=> "
CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[=>]|[\x00-\x09\x0b-\x1f]")
# What is typed, and what a shell makes of it.
OFFERED = [
    ("ringverb pub", "ringverb publish"),
    ("ringverb publish --sock", "ringverb publish --socket-id"),
    ("ringverb doctor --conn", "ringverb doctor --connections"),
]
# clap's completions for fish have no values of arguments.
VALUES = [("ringverb completions fi", "ringverb completions fish")]


class Terminal:
    """A shell in a terminal."""

    def __init__(self, command, environment):
        path = f"{PREFIX}/bin:/usr/local/bin:/usr/bin:/bin"
        self.process, self.descriptor = pty.fork()
        if self.process == 0:
            given = {"PATH": path, "TERM": "dumb", "HOME": HOME.name, "COLUMNS": "200", **environment}
            os.execvpe(command[0], command, given)
        self.text = ""

    def type(self, text):
        os.write(self.descriptor, text.encode())

    def until(self, text):
        """Reads until the shell shows the text."""
        deadline = time.monotonic() + SECONDS
        while text not in self.text:
            ready, _, _ = select.select([self.descriptor], [], [], max(0, deadline - time.monotonic()))
            if not ready:
                raise AssertionError(f"not shown: {text!r}; shown: {self.text!r}")
            read = os.read(self.descriptor, 65536).decode(errors="replace")
            self.text = CONTROL.sub("", self.text + read)

    def close(self):
        os.kill(self.process, 9)
        os.waitpid(self.process, 0)
        os.close(self.descriptor)


class Completions(unittest.TestCase):
    def completes_in(self, command, environment, setup):
        for typed, expected in OFFERED + VALUES:
            # A shell for each line: one that has a line discarded draws what differs in the next one only.
            terminal = Terminal(command, environment)
            try:
                terminal.type(f"{setup}; PS1='<''=> '\n")
                terminal.until(PROMPT)
                terminal.type(typed + "\t")
                terminal.until(expected)
            finally:
                terminal.close()

    def test_bash_offers_commands_options_and_values(self):
        # bash-completion loads the file of a command at its first use.
        self.completes_in(
            ["bash", "--norc", "--noprofile", "-i"],
            {"XDG_DATA_DIRS": f"{PREFIX}/share"},
            ". /usr/share/bash-completion/bash_completion",
        )

    def test_zsh_offers_commands_options_and_values(self):
        self.completes_in(
            ["zsh", "-f", "-i"],
            {"FOLDER": f"{PREFIX}/share/zsh/site-functions"},
            "fpath=($FOLDER $fpath); autoload -Uz compinit; compinit -D -u",
        )

    def test_fish_offers_commands_options_and_values(self):
        environment = {**os.environ, "XDG_DATA_DIRS": f"{PREFIX}/share:/usr/share", "HOME": HOME.name}
        environment["PATH"] = f"{PREFIX}/bin:{environment['PATH']}"
        for typed, expected in OFFERED:
            with self.subTest(typed):
                # The same search as after the key, as fish offers it to scripts.
                command = ["fish", "--command", f"complete --do-complete '{typed}'"]
                shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
                words = [line.split("\t")[0] for line in shown.stdout.splitlines()]
                self.assertIn(expected.split()[-1], words, shown)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
