"""Webhooks as a Python backend takes them: by an HTTP server of the standard library, verified by `pusher`."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pusher
import pysher

import test_python
from support import APP_ID, APP_KEY, APP_SECRET, Log, ServerTestCase


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.log.push((dict(self.headers.items()), body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


class WebhookTest(ServerTestCase):
    @classmethod
    def setUpClass(cls):
        cls.receiver = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
        cls.receiver.log = Log()
        threading.Thread(target=cls.receiver.serve_forever, daemon=True).start()
        cls.addClassCleanup(cls.receiver.server_close)
        cls.addClassCleanup(cls.receiver.shutdown)
        port = cls.receiver.server_address[1]
        cls.ENVIRONMENT = {"RINGVERB_WEBHOOK_URL": f"http://127.0.0.1:{port}/hook"}
        super().setUpClass()

    def test_the_library_accepts_what_is_signed_and_nothing_else(self):
        client = pysher.Pusher(APP_KEY, secure=False, custom_host="127.0.0.1", port=self.port)
        client.connection.bind(
            "pusher:connection_established", lambda _: client.subscribe("from-python")
        )
        client.connect()
        self.addCleanup(test_python.PythonTest.cut, client)
        headers, body = self.receiver.log.next()
        key, signature = headers["X-Pusher-Key"], headers["X-Pusher-Signature"]
        backend = pusher.Pusher(app_id=APP_ID, key=APP_KEY, secret=APP_SECRET)
        webhook = backend.validate_webhook(key, signature, body)
        self.assertIsNotNone(webhook)
        occupied = {"name": "channel_occupied", "channel": "from-python"}
        self.assertIn(occupied, webhook["events"])
        self.assertIsNone(backend.validate_webhook(key, signature, body + " "))
        other = pusher.Pusher(app_id=APP_ID, key=APP_KEY, secret="another")
        self.assertIsNone(other.validate_webhook(key, signature, body))
