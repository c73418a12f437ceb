"""One server process for one test class, and waiting with deadlines."""

import http.client
import os
import queue
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

APP_ID, APP_KEY, APP_SECRET = "1001", "app-key", "app-secret"
DEADLINE_S = 10

_HERE = Path(__file__).resolve().parent
_DEFAULT = _HERE / "../../../target/release/ringverb"
BINARY = Path(os.environ.get("RINGVERB_BIN", _DEFAULT)).resolve()


def until(ask, accept, what):
    """Asks again and again, for state that no event announces; returns the value accepted."""
    end = time.monotonic() + DEADLINE_S
    while True:
        value = ask()
        if accept(value):
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {DEADLINE_S} s: {what}; last seen {value!r}")
        time.sleep(0.01)


class Log:
    """What a client received, in order, filled by the client's own thread."""

    def __init__(self):
        self._queue = queue.Queue()

    def push(self, item):
        self._queue.put(item)

    def next(self):
        try:
            return self._queue.get(timeout=DEADLINE_S)
        except queue.Empty:
            raise AssertionError(f"nothing arrived within {DEADLINE_S} s") from None

    def rest(self):
        items = []
        while not self._queue.empty():
            items.append(self._queue.get_nowait())
        return items


def _free_port():
    """Below the range from which the kernel takes the ports of outgoing connections."""
    while True:
        port = random.randrange(15_000, 32_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class ServerTestCase(unittest.TestCase):
    """Starts the server in an empty directory; it must leave with exit code 0 after SIGTERM."""

    ENVIRONMENT = {}

    @classmethod
    def setUpClass(cls):
        cls.port = _free_port()
        cls._directory = tempfile.mkdtemp(prefix="ringverb-e2e-")
        cls._log_path = Path(cls._directory) / "server.log"
        cls._log = open(cls._log_path, "wb")
        cls._server = subprocess.Popen(
            [str(BINARY)],
            cwd=cls._directory,
            stdin=subprocess.DEVNULL,
            stdout=cls._log,
            stderr=cls._log,
            env={
                "PATH": os.environ["PATH"],
                "HOME": cls._directory,
                "REVERB_APP_ID": APP_ID,
                "REVERB_APP_KEY": APP_KEY,
                "REVERB_APP_SECRET": APP_SECRET,
                "REVERB_SERVER_HOST": "127.0.0.1",
                "REVERB_SERVER_PORT": str(cls.port),
                "RINGVERB_WORKERS": "4",
                "RINGVERB_IO": os.environ.get("RINGVERB_IO", "auto"),
                "RINGVERB_ADMIN": "off",
                "RINGVERB_LOG_FORMAT": "text",
                **cls.ENVIRONMENT,
            },
        )
        cls.addClassCleanup(cls._stop)
        until(cls._up, bool, "answer from /up")

    @classmethod
    def _up(cls):
        if cls._server.poll() is not None:
            raise AssertionError(f"the server ended before it was ready:\n{cls.output()}")
        connection = http.client.HTTPConnection("127.0.0.1", cls.port, timeout=DEADLINE_S)
        try:
            connection.request("GET", "/up")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    @classmethod
    def output(cls):
        return cls._log_path.read_text(errors="replace")[-20_000:]

    @classmethod
    def _stop(cls):
        try:
            assert cls._server.poll() is None, f"the server ended by itself:\n{cls.output()}"
            cls._server.send_signal(signal.SIGTERM)
            code = cls._server.wait(timeout=20)
            assert code == 0, f"exit code {code} after SIGTERM:\n{cls.output()}"
        finally:
            cls._server.kill()
            cls._server.wait()
            cls._log.close()
            shutil.rmtree(cls._directory, ignore_errors=True)
