"""The Python libraries: `pusher` as the publisher, `pysher` (protocol 6) as the client."""

import json
import logging
import socket
import unittest

import pusher
import pysher

from support import APP_ID, APP_KEY, APP_SECRET, DEADLINE_S, Log, ServerTestCase, until

CHANNEL_EVENTS = ("pusher_internal:member_added", "pusher_internal:member_removed", "e", "end")


class PythonTest(ServerTestCase):
    def setUp(self):
        self.backend = self.backend_with()

    def backend_with(self, **change):
        settings = {"app_id": APP_ID, "key": APP_KEY, "secret": APP_SECRET, **change}
        return pusher.Pusher(host="127.0.0.1", port=self.port, ssl=False, **settings)

    def client(self, **settings):
        client = pysher.Pusher(
            APP_KEY,
            secure=False,
            custom_host="127.0.0.1",
            port=self.port,
            secret=APP_SECRET,
            log_level=logging.CRITICAL,
            **settings,
        )
        connected = Log()
        client.connection.bind("pusher:connection_established", connected.push)
        client.connect()
        self.addCleanup(self.cut, client)
        connected.next()
        return client

    @staticmethod
    def cut(client):
        """The library's `disconnect` may leave its reading thread waiting on a closed descriptor."""
        connection = client.connection
        if connection.disconnect_called:
            return
        connection.disconnect_called = True
        connection.socket.sock.sock.shutdown(socket.SHUT_RDWR)
        connection.join(DEADLINE_S)
        assert not connection.is_alive()

    def subscribe(self, client, name):
        """Callbacks can be bound only when the request is out, so the server is asked for success."""
        before = self.subscribers(name)
        log = Log()
        channel = client.subscribe(name)
        for event in (*CHANNEL_EVENTS, "client-e"):
            channel.bind(event, lambda data, event=event: log.push((event, data)))
        until(lambda: self.subscribers(name), lambda n: n == before + 1, f"subscription to {name}")
        return channel, log

    def subscribers(self, name):
        attribute = "user_count" if name.startswith("presence-") else "subscription_count"
        return self.backend.channel_info(name, [attribute]).get(attribute, 0)

    def test_trigger_text_and_object(self):
        _, log = self.subscribe(self.client(), "news")
        self.assertEqual(self.backend.trigger("news", "e", "plain é \\ / text"), {})
        self.assertEqual(self.backend.trigger(["news", "other"], "e", {"id": 1, "é": None}), {})
        self.assertEqual(log.next(), ("e", "plain é \\ / text"))
        event, data = log.next()
        self.assertEqual((event, json.loads(data)), ("e", {"id": 1, "é": None}))

    def test_trigger_batch_keeps_the_order(self):
        _, log = self.subscribe(self.client(), "batch")
        batch = [{"channel": "batch", "name": "e", "data": str(index)} for index in range(10)]
        self.assertEqual(self.backend.trigger_batch(batch), {"batch": {}})
        self.assertEqual([log.next() for _ in range(10)], [("e", str(n)) for n in range(10)])

    def test_socket_id_is_excluded(self):
        first, second = self.client(), self.client()
        _, first_log = self.subscribe(first, "others")
        _, second_log = self.subscribe(second, "others")
        self.backend.trigger("others", "e", "x", first.connection.socket_id)
        self.backend.trigger("others", "end", "x")
        self.assertEqual(first_log.next(), ("end", "x"))
        self.assertEqual([second_log.next(), second_log.next()], [("e", "x"), ("end", "x")])

    def test_channel_queries(self):
        # This library sends a body_md5 with GET requests too.
        user = {"user_id": "ann", "user_info": {"name": "Ann"}}
        client = self.client(user_data=user)
        self.subscribe(client, "query-public")
        self.subscribe(client, "presence-query")
        self.assertEqual(
            self.backend.channels_info("presence-query", ["user_count"]),
            {"channels": {"presence-query": {"user_count": 1}}},
        )
        self.assertEqual(
            self.backend.channel_info("query-public", ["subscription_count"]),
            {"occupied": True, "subscription_count": 1},
        )
        self.assertEqual(self.backend.channel_info("query-none"), {"occupied": False})
        self.assertEqual(self.backend.users_info("presence-query"), {"users": [{"id": "ann"}]})

    def test_private_with_the_library_as_authenticator(self):
        client = self.client()
        name = "private-orders"
        signed = self.backend.authenticate(name, client.connection.socket_id)
        log = Log()
        channel = client.subscribe(name, signed["auth"])
        channel.bind("e", log.push)
        until(lambda: self.subscribers(name), lambda n: n == 1, "subscription")
        self.backend.trigger(name, "e", {"id": 3})
        self.assertEqual(json.loads(log.next()), {"id": 3})

    def test_presence_joins_and_leaves_once(self):
        name = "presence-room"
        watcher = self.client(user_data={"user_id": "watcher"})
        _, log = self.subscribe(watcher, name)
        guest = self.client(user_data={"user_id": "guest", "user_info": {"n": 1}})
        self.subscribe(guest, name)
        event, data = log.next()
        self.assertEqual(event, "pusher_internal:member_added")
        self.assertEqual(json.loads(data), {"user_id": "guest", "user_info": {"n": 1}})
        self.cut(guest)
        event, data = log.next()
        self.assertEqual(event, "pusher_internal:member_removed")
        self.assertEqual(json.loads(data), {"user_id": "guest"})
        self.backend.trigger(name, "end", "x")
        self.assertEqual(log.next(), ("end", "x"))
        self.assertEqual(log.rest(), [])

    def test_client_events(self):
        first, second = self.client(), self.client()
        channel, first_log = self.subscribe(first, "private-chat")
        _, second_log = self.subscribe(second, "private-chat")
        channel.trigger("client-e", {"n": 1})
        self.assertEqual(second_log.next(), ("client-e", {"n": 1}))
        self.backend.trigger("private-chat", "end", "x")
        self.assertEqual(first_log.next(), ("end", "x"))

    def test_errors_reach_the_developer(self):
        with self.assertRaisesRegex(pusher.errors.PusherBadAuth, "signature invalid"):
            self.backend_with(secret="wrong").trigger("x", "e", "x")
        with self.assertRaisesRegex(pusher.errors.PusherBadStatus, r"for ID \[999\]"):
            self.backend_with(app_id="999").trigger("x", "e", "x")


if __name__ == "__main__":
    unittest.main()
