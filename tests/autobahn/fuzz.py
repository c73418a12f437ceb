#!/usr/bin/env python3
"""The fuzzing client of the Autobahn test suite, on Python 3: runs its cases against one echo server.

    fuzz.py URL [--section N]... [--expect COUNT]

Cases and verdicts are the suite's own, and so is the WebSocket client below them (autobahn 0.10.9). This file stands
where `wstest -m fuzzingclient` does: it gives each case its connection, and its helpers to the case. Ends with 1 unless
every case is OK or INFORMATIONAL, and unless COUNT cases ran.
"""

import argparse
import collections
import sys
import time

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol, connectWS
from twisted.internet import reactor

import suite
from octets import to_bytes, to_text

GOOD = {"OK", "INFORMATIONAL"}
Verdict = collections.namedtuple("Verdict", "number behavior close result seconds")


class Fuzzer(WebSocketClientProtocol):
    """One connection, with what the cases call. Texts of cases become bytes here, and bytes texts."""

    def __init__(self, number, case):
        super().__init__()
        self.number = number
        self.case = case
        self.connectionWasOpen = False
        self.createWirelog = True
        self.txFrameStats = collections.Counter()
        # What went out, for the large cases: there the suite looks at the length of the echo only.
        self.sent = collections.deque()
        self.garbled = False

    def connectionMade(self):
        self.run = self.case(self)
        self.started = time.monotonic()
        super().connectionMade()

    def connectionLost(self, reason):
        super().connectionLost(reason)
        self.run.onConnectionLost(self.failedByMe)
        behavior, close, result = self.run.behavior, self.run.behaviorClose, self.run.result
        if close not in GOOD:
            result = f"{result} {self.run.resultClose}"
        if self.garbled:
            behavior, result = "FAILED", "The echo is not what was sent."
        self.factory.done(Verdict(self.number, behavior, close, result, time.monotonic() - self.started))

    def onOpen(self):
        self.connectionWasOpen = True
        self.run.onOpen()

    def onMessage(self, payload, isBinary):
        if self.number.startswith("9."):
            self.garbled |= self.sent.popleft() != payload
        self.run.onMessage(to_text(payload), isBinary)

    def onPing(self, payload):
        self.run.onPing(to_text(payload))

    def onPong(self, payload):
        self.run.onPong(to_text(payload))

    def onClose(self, wasClean, code, reason):
        self.run.onClose(wasClean, code, reason)

    def sendFrame(self, opcode, payload=b"", fin=True, rsv=0, mask=None, payload_len=None, chopsize=None, sync=False):
        payload = to_bytes(payload)
        if payload_len is not None:
            payload = (payload * (payload_len // len(payload) + 1))[:payload_len]
        self.txFrameStats[opcode] += 1
        if self.number.startswith("9.") and opcode in (0, 1, 2):
            self.sent.append(payload if opcode else self.sent.pop() + payload)
        super().sendFrame(opcode, payload, fin, rsv, mask, None, chopsize, sync)

    def sendMessage(self, payload, isBinary=False, fragmentSize=None, sync=False, doNotCompress=False):
        super().sendMessage(to_bytes(payload), isBinary, fragmentSize, sync, doNotCompress)

    def sendMessageFrameData(self, payload, sync=False):
        return super().sendMessageFrameData(to_bytes(payload), sync)

    def sendCloseFrame(self, code=None, reasonUtf8=None, isReply=False):
        super().sendCloseFrame(code, None if reasonUtf8 is None else to_bytes(reasonUtf8), isReply)

    def enableWirelog(self, enable):
        self.createWirelog = enable

    def later(self, delay, act):
        reactor.callLater(delay, lambda: self.state == self.STATE_CLOSED or act())

    def continueLater(self, delay, act, tag=None):
        self.later(delay, act)

    def killAfter(self, delay):
        self.later(delay, self.failConnection)

    def closeAfter(self, delay):
        self.later(delay, self.sendClose)


class Factory(WebSocketClientFactory):
    """A connection for each case, one behind the other."""

    def __init__(self, url, cases):
        super().__init__(url, useragent="AutobahnTestSuite")
        # Faults are told with a close frame, not with a lost connection.
        self.setProtocolOptions(failByDrop=False)
        self.waiting = collections.deque(cases.items())
        self.verdicts = []
        self.problem = None

    def buildProtocol(self, address):
        protocol = Fuzzer(*self.waiting.popleft())
        protocol.factory = self
        return protocol

    def done(self, verdict):
        self.verdicts.append(verdict)

    def clientConnectionLost(self, connector, reason):
        if self.waiting:
            connector.connect()
        else:
            reactor.stop()

    def clientConnectionFailed(self, connector, reason):
        self.problem = reason.getErrorMessage()
        reactor.stop()


def natural(number):
    return [int(part) for part in number.split(".")]


def report(verdicts, cases):
    """A line for each section; those that are not good in full. Returns these."""
    sections = collections.defaultdict(collections.Counter)
    for verdict in verdicts:
        sections[natural(verdict.number)[0]][verdict.behavior] += 1
    for section, counts in sorted(sections.items()):
        seconds = sum(found.seconds for found in verdicts if natural(found.number)[0] == section)
        counted = ", ".join(f"{count} {behavior}" for behavior, count in sorted(counts.items()))
        print(f"  section {section:2}: {counted} ({seconds:.1f} s)")
    bad = [verdict for verdict in verdicts if not {verdict.behavior, verdict.close} <= GOOD]
    for verdict in bad:
        case = cases[verdict.number]
        print(f"case {verdict.number}: {verdict.behavior}, close {verdict.close}: {verdict.result}", file=sys.stderr)
        print(f"    {' '.join(case.DESCRIPTION.split())}", file=sys.stderr)
        print(f"    expected: {' '.join(case.EXPECTATION.split())}", file=sys.stderr)
    return bad


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--section", type=int, action="append", help="this section only")
    parser.add_argument("--expect", type=int, help="how many cases must run")
    given = parser.parse_args()
    cases = suite.load()
    if given.section:
        cases = {number: case for number, case in cases.items() if natural(number)[0] in given.section}
    if not cases:
        sys.exit(f"no cases: section {given.section}")
    factory = Factory(given.url, cases)
    connectWS(factory)
    reactor.run()
    bad = report(factory.verdicts, cases)
    passed = len(factory.verdicts) - len(bad)
    print(f"Autobahn: {passed} passed, {len(bad)} failed")
    if factory.problem:
        sys.exit(f"the server cannot be reached: {factory.problem}")
    expected = given.expect or len(cases)
    if len(factory.verdicts) != expected:
        sys.exit(f"{len(factory.verdicts)} cases ran, where {expected} were expected")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
