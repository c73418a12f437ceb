"""Strings of Python 2 in Python 3: text with a character for each byte, and what the cases ask of strings."""

import binascii

from autobahn.websocket import utf8validator


def to_bytes(text):
    return text if isinstance(text, bytes) else text.encode("latin-1")


def to_text(data):
    return data.decode("latin-1")


def b2a_hex(text):
    return to_text(binascii.b2a_hex(to_bytes(text)))


class Utf8Validator(utf8validator.Utf8Validator):
    def validate(self, text):
        return super().validate(to_bytes(text))
