"""The peer through which a case speaks to the server: a WebSocket client that may break every rule.

The names of its methods and members are those that the cases use. A text is bytes as Latin-1.
"""

import asyncio
import itertools
import os
import socket
import struct
import time

from cases import WebSocketProtocol

# How long a server may take to answer a close frame, and to end the connection behind it.
CLOSE_SECONDS = 5
DROP_SECONDS = 1


class Peer(WebSocketProtocol):
    def __init__(self, address, path):
        self.address, self.path = address, path
        self.state = self.STATE_CONNECTING
        self.factory = type("Factory", (), {"isServer": False})
        self.autoFragmentSize = 0
        self.txFrameStats = {}
        self.connectionWasOpen = self.wasClean = False
        self.closedByMe = self.droppedByMe = self.failedByMe = False
        self.localCloseCode = self.localCloseReason = None
        self.remoteCloseCode = self.remoteCloseReason = None
        self.createWirelog = True
        self.timers = []
        self.to_send = asyncio.Queue()
        self.message = None

    async def run(self, case):
        """The conversation from the handshake to the end of the connection."""
        self.loop = asyncio.get_running_loop()
        self.case = case
        self.reader, self.writer = await asyncio.open_connection(*self.address, limit=1 << 26)
        self.writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await self.shake_hands()
        sending = asyncio.create_task(self.send_all())
        try:
            self.state, self.connectionWasOpen = self.STATE_OPEN, True
            case.onOpen()
            await self.receive_all()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.state = self.STATE_CLOSED
            sending.cancel()
            for timer in self.timers:
                timer.cancel()
            self.writer.transport.abort()
        case.onConnectionLost(self.failedByMe)

    async def shake_hands(self):
        host = "%s:%d" % self.address
        self.writer.write(
            f"GET {self.path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        head = await self.reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101 ") or b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" not in head:
            raise ConnectionError(f"no handshake: {head!r}")

    # Sending.

    def sendFrame(self, opcode, payload="", fin=True, rsv=0, mask=None, payload_len=None, chopsize=None, sync=False):
        self.txFrameStats[opcode] = self.txFrameStats.get(opcode, 0) + 1
        payload = payload.encode("latin-1")
        if payload_len is not None:
            payload = bytes(itertools.islice(itertools.cycle(payload), payload_len)) if payload else b""
        bytes_out = self.header(opcode, len(payload), fin, rsv)
        bytes_out, mask = bytes_out[:-4], bytes_out[-4:]
        self.send(bytes_out + mask + masked(payload, mask, 0), chopsize)

    def header(self, opcode, length, fin=True, rsv=0):
        first = (fin << 7) | (rsv << 4) | opcode
        if length < 126:
            form = struct.pack("!BB", first, 0x80 | length)
        elif length < 1 << 16:
            form = struct.pack("!BBH", first, 0x80 | 126, length)
        else:
            form = struct.pack("!BBQ", first, 0x80 | 127, length)
        return form + os.urandom(4)

    def send(self, data, chopsize=None):
        step = chopsize or max(len(data), 1)
        for start in range(0, len(data), step):
            self.to_send.put_nowait(data[start : start + step])

    async def send_all(self):
        try:
            while True:
                self.writer.write(await self.to_send.get())
                # Each piece is a segment of its own: the loop has its turn between them.
                await self.writer.drain()
                await asyncio.sleep(0)
        except ConnectionError:
            pass

    def sendMessage(self, payload, isBinary=False, fragmentSize=None):
        opcode = 2 if isBinary else 1
        size = fragmentSize or self.autoFragmentSize or max(len(payload), 1)
        starts = range(0, max(len(payload), 1), size)
        for start in starts:
            last = start == starts[-1]
            self.sendFrame(opcode if start == 0 else 0, payload[start : start + size], fin=last)

    def beginMessage(self):
        pass

    def beginMessageFrame(self, length):
        header = self.header(1, length)
        self.open_frame = (header[-4:], 0)
        self.send(header)

    def sendMessageFrameData(self, payload):
        mask, sent = self.open_frame
        self.send(masked(payload.encode("latin-1"), mask, sent))
        self.open_frame = (mask, sent + len(payload))

    def endMessage(self):
        self.sendFrame(0, "")

    def sendClose(self, code=None, reason=None):
        self.sendCloseFrame(code, reason)

    def sendCloseFrame(self, code=None, reasonUtf8=None, isReply=False):
        if self.state != self.STATE_OPEN:
            return
        payload = "" if code is None else struct.pack("!H", code).decode("latin-1")
        payload += reasonUtf8 or ""
        self.sendFrame(8, payload)
        self.state = self.STATE_CLOSING
        self.closedByMe = not isReply
        self.localCloseCode, self.localCloseReason = code, reasonUtf8
        self.later(CLOSE_SECONDS, self.drop)

    def drop(self):
        if self.state != self.STATE_CLOSED:
            self.droppedByMe = True
            self.writer.transport.abort()
            self.reader.feed_eof()

    # What the cases ask of the clock.

    def later(self, seconds, what):
        self.timers.append(self.loop.call_later(seconds, what))

    def continueLater(self, seconds, what, tag=None):
        self.later(seconds, what)

    def closeAfter(self, seconds):
        self.later(seconds, self.sendClose)

    def killAfter(self, seconds):
        self.later(seconds, self.fail)

    def fail(self):
        self.failedByMe = True
        if self.state == self.STATE_CLOSING:
            self.drop()
        else:
            self.sendCloseFrame(self.CLOSE_STATUS_CODE_GOING_AWAY, "going away")

    def enableWirelog(self, enable):
        pass

    # Receiving.

    async def receive_all(self):
        while True:
            first, second = await self.reader.readexactly(2)
            fin, rsv, opcode, length = first >> 7, first >> 4 & 7, first & 15, second & 127
            if rsv or second & 128:
                raise ConnectionError("a frame of the server with reserved bits or a mask")
            if length == 126:
                (length,) = struct.unpack("!H", await self.reader.readexactly(2))
            elif length == 127:
                (length,) = struct.unpack("!Q", await self.reader.readexactly(8))
            payload = (await self.reader.readexactly(length)).decode("latin-1")
            if opcode == 8:
                return await self.on_close(payload)
            self.on_frame(fin, opcode, payload)

    def on_frame(self, fin, opcode, payload):
        if opcode == 9:
            self.sendFrame(10, payload)
            self.case.onPing(payload)
        elif opcode == 10:
            self.case.onPong(payload)
        elif opcode in (1, 2) and self.message is None:
            self.message = (opcode == 2, payload)
        elif opcode == 0 and self.message is not None:
            self.message = (self.message[0], self.message[1] + payload)
        else:
            raise ConnectionError(f"an unexpected frame of the server: opcode {opcode}")
        if fin and opcode < 8:
            (binary, whole), self.message = self.message, None
            self.case.onMessage(whole, binary)

    async def on_close(self, payload):
        if payload:
            (self.remoteCloseCode,) = struct.unpack("!H", payload[:2].encode("latin-1"))
            self.remoteCloseReason = payload[2:]
        self.wasClean = True
        code = self.CLOSE_STATUS_CODE_NORMAL if self.remoteCloseCode is None else self.remoteCloseCode
        self.sendCloseFrame(code, self.remoteCloseReason, isReply=True)
        self.state = self.STATE_CLOSING
        # The server is to end the connection, and to say nothing more.
        self.later(DROP_SECONDS, self.drop)
        if await self.reader.read(1):
            self.wasClean = False


def masked(payload, mask, offset):
    if not payload:
        return b""
    length = len(payload)
    mask = mask[offset % 4 :] + mask[: offset % 4]
    repeated = (mask * (length // 4 + 1))[:length]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")).to_bytes(length, "big")
