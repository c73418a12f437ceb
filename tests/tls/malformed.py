"""Clients that break the rules of TLS, built on tlslite-ng: each gets the alert that RFC 8446 or 5246 names.

malformed.py PORT. The server has an ECDSA certificate. After each case a good client must be served, so a case that
ends the server fails. Prints a line for each case, and ends with 1 if one fails.
"""

import os
import socket
import sys

from tlslite import tlsconnection
from tlslite.api import HandshakeSettings, TLSConnection
from tlslite.constants import AlertDescription, CipherSuite, ContentType, ExtensionType, GroupName
from tlslite.errors import TLSAbruptCloseError, TLSError, TLSRemoteAlert
from tlslite.extensions import TLSExtension
from tlslite.messages import ClientHello, Message

PORT = int(sys.argv[1])
GET = b"GET /up HTTP/1.1\r\nHost: x\r\n\r\n"
V12, V13 = (3, 3), (3, 4)
SECONDS = 20
# What a case may expect besides the number of an alert.
SERVED, CLOSED = "served", "closed without an alert"


class Tap:
    """A socket whose sent bytes can be changed, or collected for one send."""

    def __init__(self):
        self.socket = socket.create_connection(("127.0.0.1", PORT), SECONDS)
        self.change = None
        self.held = None

    def hold(self):
        self.held = bytearray()

    def release(self):
        held, self.held = self.held, None
        self.sendall(held)

    def send(self, data):
        self.sendall(data)
        return len(data)

    def sendall(self, data):
        data = bytearray(data)
        if self.change:
            data = self.change(data)
        if self.held is None:
            self.socket.sendall(data)
        else:
            self.held += data

    def recv(self, most):
        return self.socket.recv(most)

    def __getattr__(self, name):
        return getattr(self.socket, name)


def settings(version=None, **more):
    made = HandshakeSettings()
    made.minVersion, made.maxVersion = (version, version) if version else (V12, V13)
    for name, value in more.items():
        setattr(made, name, value)
    return made


def connected(version=V13, alpn=None, **more):
    tap = Tap()
    client = TLSConnection(tap)
    client.handshakeClientCert(settings=settings(version, **more), serverName="localhost", alpn=alpn)
    assert client.version == version, client.version
    return client, tap


def send(client, kind, content):
    """One record of this type, sealed."""
    for _ in client._recordLayer.sendRecord(Message(kind, bytearray(content))):
        pass


def read(client):
    received = b""
    while b'{"health":"OK"}' not in received and b"\r\n\r\n" not in received:
        part = bytes(client.read(max=4096, min=1))
        if not part:
            break
        received += part
    return received


def verdict(act):
    """What becomes of a connection: an alert's number, `SERVED` or `CLOSED`."""
    try:
        client = act()
        if isinstance(client, TLSConnection):
            return SERVED if b"200 OK" in read(client) else CLOSED
        return client
    except TLSRemoteAlert as alert:
        return alert.description
    except (TLSAbruptCloseError, ConnectionError, BrokenPipeError):
        return CLOSED


def established(version, *records, then=GET, **more):
    """After the handshake these records, then a request, all in one send: a reset would destroy an alert."""

    def act():
        client, tap = connected(version, **more)
        tap.hold()
        for kind, content in records:
            send(client, kind, content)
        if then:
            client.write(then)
        tap.release()
        return client

    return act


def changed(version, change):
    """A request whose sealed record is changed."""

    def act():
        client, tap = connected(version)
        tap.change = change
        client.write(GET)
        return client

    return act


def flip(data):
    data[-1] ^= 1
    return data


def raw(*parts):
    """These bytes in place of a handshake: the first alert, as plaintext."""

    def act():
        tap = Tap()
        for part in parts:
            tap.sendall(part)
        received = b""
        try:
            while part := tap.recv(4096):
                received += part
        except ConnectionError:
            pass
        if received.startswith(b"HTTP/1.1 400"):
            return 400
        if len(received) == 7 and received[0] == ContentType.alert:
            return received[6]
        return CLOSED if not received else received

    return act


def record(kind, content, version=(3, 1)):
    return bytes([kind, *version]) + len(content).to_bytes(2, "big") + bytes(content)


def hello(version=V12, extensions=(), suites=None):
    """A ClientHello as a handshake message."""
    suites = suites or [CipherSuite.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]
    made = ClientHello().create(version, bytearray(os.urandom(32)), bytearray(), suites, extensions=list(extensions))
    return bytes(made.write())


def extension(kind, content):
    return TLSExtension(extType=kind).create(kind, bytearray(content))


GROUPS = extension(ExtensionType.supported_groups, [0, 2, 0, GroupName.secp256r1])
SIGNATURES = extension(ExtensionType.signature_algorithms, [0, 2, 4, 3])


def in_handshake(change, **more):
    """A TLS 1.3 handshake whose sent bytes pass through `change(number, bytes)`."""

    def act():
        tap, number = Tap(), [0]

        def count(data):
            number[0] += 1
            return change(number[0], data)

        tap.change = count
        client = TLSConnection(tap)
        client.handshakeClientCert(settings=settings(V13, **more), serverName="localhost")
        client.write(GET)
        return client

    return act


def in_small_records(bytes_of_a_record):
    def cut(number, data):
        if number != 1:
            return data
        message = data[5:]
        parts = (message[at:at + bytes_of_a_record] for at in range(0, len(message), bytes_of_a_record))
        return bytearray(b"".join(record(ContentType.handshake, part) for part in parts))

    return cut


class EarlyHello(ClientHello):
    """Announces early data; the extension of pre-shared keys comes after it."""

    def create(self, *args, extensions=None, **more):
        return super().create(*args, extensions=[*extensions, extension(ExtensionType.early_data, [])], **more)


class EarlyConnection(TLSConnection):
    def _sendMsgs(self, messages):
        for message in messages:
            if isinstance(message, ClientHello):
                # RFC 8446 section 4.1.2: a second hello has none.
                message.extensions = [one for one in message.extensions if one.extType != ExtensionType.early_data]
        return super()._sendMsgs(messages)


# A ticket of another server: nothing that this server could open.
FOREIGN = (os.urandom(180), os.urandom(32), "sha256")


def early(*records, hello=EarlyHello, ticket=True, sends_more=True, **more):
    """A client with another server's ticket: these records follow its first hello. Not `sends_more`: nothing else is
    sent, because it would meet a closed connection before the alert is read."""

    def act():
        tap, number = Tap(), [0]

        def change(data):
            number[0] += 1
            if number[0] == 1:
                return data + b"".join(records)
            return data if sends_more else b""

        tap.change = change
        client = EarlyConnection(tap)
        tlsconnection.ClientHello = hello
        try:
            offered = settings(V13, pskConfigs=[FOREIGN] if ticket else [], **more)
            client.handshakeClientCert(settings=offered, serverName="localhost")
        finally:
            tlsconnection.ClientHello = ClientHello
        client.write(GET)
        return client

    return act


def sealed(content_bytes):
    """A record that no key of this server opens: content, its type, and a tag."""
    return record(ContentType.application_data, os.urandom(content_bytes + 17), V12)


def early_after_finished():
    client, tap = connected(V13)
    tap.hold()
    tap.sendall(sealed(100))
    client.write(GET)
    tap.release()
    return client


KEY_UPDATE = [24, 0, 0, 1]
# Requests that fill a record.
FULL = GET.replace(b"/up", b"/up?" + b"x" * 27) + GET * 563
assert len(FULL) == 16_384
HANDSHAKE, ALERT, DATA, CCS = (
    ContentType.handshake, ContentType.alert, ContentType.application_data, ContentType.change_cipher_spec)
A = AlertDescription

CASES = [
    ("1.3: a good client", established(V13), SERVED),
    ("1.2: a good client", established(V12), SERVED),
    ("1.3: empty records of data before a request", established(V13, *[(DATA, b"")] * 20), SERVED),
    ("1.2: empty records of data before a request", established(V12, *[(DATA, b"")] * 20), SERVED),
    ("1.3: a flood of empty records", established(V13, *[(DATA, b"")] * 40), A.unexpected_message),
    ("1.2: a flood of empty records", established(V12, *[(DATA, b"")] * 40), A.unexpected_message),
    ("1.3: padded records", established(V13, padding_cb=lambda length, kind, most: min(most, 1_000)), SERVED),
    ("1.3: a record of padding alone", established(V13, (0, b"")), A.unexpected_message),
    ("1.3: an unknown inner type", established(V13, (25, b"x")), A.unexpected_message),
    ("1.3: a heartbeat", established(V13, (24, b"x")), A.unexpected_message),
    ("1.2: an unknown type", established(V12, (25, b"x")), A.unexpected_message),
    ("1.3: content of 16,384 bytes", established(V13, (DATA, FULL), then=None), SERVED),
    ("1.2: content of 16,384 bytes", established(V12, (DATA, FULL), then=None), SERVED),
    ("1.3: content of 16,385 bytes", established(V13, (DATA, b"a" * 16_385)), A.record_overflow),
    ("1.2: content of 16,385 bytes", established(V12, (DATA, b"a" * 16_385)), A.record_overflow),
    ("1.3: a changed record", changed(V13, flip), A.bad_record_mac),
    ("1.2: a changed record", changed(V12, flip), A.bad_record_mac),
    ("1.3: a record of impossible length", changed(V13, lambda data: bytearray([23, 3, 3, 0xff, 0xff])),
     A.record_overflow),
    ("1.3: a record without a tag", changed(V13, lambda data: bytearray([23, 3, 3, 0, 1, 0])), A.bad_record_mac),
    ("1.2: a record without a tag", changed(V12, lambda data: bytearray([23, 3, 3, 0, 9, *bytes(9)])),
     A.bad_record_mac),
    ("1.2: a record of another version", changed(V12, lambda data: bytearray([23, 3, 1]) + data[3:]),
     A.protocol_version),
    ("1.3: plaintext after the handshake", changed(V13, lambda data: bytearray(record(21, [1, 0], V12))),
     A.unexpected_message),
    ("1.3: ChangeCipherSpec after the handshake", established(V13, (CCS, b"\1")), A.unexpected_message),
    ("1.2: ChangeCipherSpec after the handshake", established(V12, (CCS, b"\1")), A.unexpected_message),
    ("1.3: a key update", None, SERVED),
    ("1.3: a key update with a forbidden value", established(V13, (HANDSHAKE, [*KEY_UPDATE, 2])), A.illegal_parameter),
    ("1.3: a key update that does not end its record", established(V13, (HANDSHAKE, [*KEY_UPDATE, 0, 24])),
     A.unexpected_message),
    ("1.3: a key update that is too long", established(V13, (HANDSHAKE, [24, 0, 0, 2, 0, 0])), A.decode_error),
    ("1.3: a part of a key update, then data", established(V13, (HANDSHAKE, KEY_UPDATE[:2])), A.unexpected_message),
    ("1.3: a ClientHello after the handshake", established(V13, (HANDSHAKE, hello())), A.unexpected_message),
    ("1.3: an empty handshake message", established(V13, (HANDSHAKE, b"")), A.unexpected_message),
    ("1.2: a renegotiation is refused with a warning", established(V12, (HANDSHAKE, hello()), then=None),
     A.no_renegotiation),
    ("1.3: an alert of one byte", established(V13, (ALERT, [1])), A.decode_error),
    ("1.3: an alert of three bytes", established(V13, (ALERT, [1, 0, 0])), A.decode_error),
    ("1.3: user_canceled, which goes on", established(V13, (ALERT, [1, 90])), SERVED),
    ("1.3: a fatal alert", established(V13, (ALERT, [2, 80])), CLOSED),
    ("1.3: a hello in records of 1 byte", in_handshake(in_small_records(1)), SERVED),
    ("1.3: a hello in records of 100 bytes", in_handshake(in_small_records(100)), SERVED),
    ("1.3: a changed Finished", in_handshake(lambda number, data: flip(data) if number > 1 and data[0] == DATA else
     data), A.bad_record_mac),
    ("early data for another server's ticket", early(*[sealed(1_000)] * 3), SERVED),
    ("early data in records of one byte", early(*[sealed(1)] * 500), SERVED),
    ("early data in a record of 16,384 bytes", early(sealed(16_384)), SERVED),
    ("early data before a second hello", early(*[sealed(1_000)] * 3, keyShares=[]), SERVED),
    ("early data and a ChangeCipherSpec after it", early(sealed(100), record(CCS, [1], V12)), SERVED),
    ("early data is announced and not sent", early(), SERVED),
    ("early data of 32,500 bytes with its tags", early(*[sealed(483)] * 65), SERVED),
    ("early data of 33,500 bytes", early(*[sealed(483)] * 67, sends_more=False), A.bad_record_mac),
    ("early data in records without content", early(*[record(DATA, os.urandom(16), V12)] * 3, sends_more=False),
     A.bad_record_mac),
    ("early data in a record that is too long", early(sealed(16_700), sends_more=False), A.record_overflow),
    ("early data that was not announced", early(sealed(100), hello=ClientHello, sends_more=False), A.bad_record_mac),
    ("early data without a ticket", early(sealed(100), ticket=False), SERVED),
    ("early data, then a Finished without its key",
     early(sealed(100), record(HANDSHAKE, [20, 0, 0, 1, 0], V12), sends_more=False), A.unexpected_message),
    ("early data, then an alert without a key", early(sealed(100), record(ALERT, [2, 40], V12), sends_more=False),
     None),
    ("early data after the handshake", early_after_finished, A.bad_record_mac),
    ("plain HTTP", raw(GET), 400),
    ("hello of SSL 2", raw(bytes([0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10]) + os.urandom(37)), 400),
    ("hello of TLS 1.1", raw(record(HANDSHAKE, hello((3, 2), [GROUPS, SIGNATURES]))), A.protocol_version),
    ("hello with a suite of CBC only", raw(record(HANDSHAKE,
     hello(V12, [GROUPS, SIGNATURES], [CipherSuite.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA]))), A.handshake_failure),
    ("hello with a suite of RSA key exchange only",
     raw(record(HANDSHAKE, hello(V12, [GROUPS, SIGNATURES], [CipherSuite.TLS_RSA_WITH_AES_128_GCM_SHA256]))),
     A.handshake_failure),
    ("hello with h2 only", raw(record(HANDSHAKE, hello(V12, [GROUPS, SIGNATURES, extension(16, [0, 3, 2, *b"h2"])]))),
     A.no_application_protocol),
    ("hello with an extension twice", raw(record(HANDSHAKE, hello(V12, [GROUPS, GROUPS, SIGNATURES]))),
     A.illegal_parameter),
    ("hello with an extension that is cut", raw(record(HANDSHAKE, hello(V12, [extension(10, [0, 9, 0]), SIGNATURES]))),
     A.decode_error),
    ("hello with a length of 16 MB", raw(record(HANDSHAKE, [1, 0xff, 0xff, 0xff])), None),
    ("a record of 16,385 bytes in the handshake", raw(record(HANDSHAKE, [])[:3] + bytes([0x40, 1])), A.record_overflow),
    ("a Finished in place of a hello", raw(record(HANDSHAKE, [20, 0, 0, 1, 0])), A.unexpected_message),
    ("an alert in place of a hello", raw(record(ALERT, [2, 40])), None),
    ("data after a part of a hello", raw(record(HANDSHAKE, hello()[:20]) + record(DATA, b"x")), None),
    ("an empty record after a part of a hello", raw(record(HANDSHAKE, hello()[:20]) + record(DATA, b"")), None),
]


def key_update():
    client, _ = connected(V13)
    for _ in range(3):
        for _ in client.send_keyupdate_request(1):
            pass
        client.write(GET)
        assert b"200 OK" in read(client)
    client.write(GET)
    return client


def main():
    failed = 0
    for name, act, expected in CASES:
        found = verdict(act or key_update)
        # `None`: the connection ends, whatever the alert is.
        good = found == expected if expected is not None else found != SERVED
        good = good and verdict(established(V13)) == SERVED
        show = lambda number: AlertDescription.toStr(number) if isinstance(number, int) and number != 400 else number
        if not good:
            failed += 1
        print(f"{'ok' if good else 'FAILED'}: {name}: {show(found)}" + ("" if good else f", expected {show(expected)}"))
    print(f"malformed.py: {len(CASES) - failed} of {len(CASES)} cases as expected")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
