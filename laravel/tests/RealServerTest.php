<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Tests;

use PHPUnit\Framework\AssertionFailedError;
use PHPUnit\Framework\TestCase;
use Ringverb\Laravel\Events\ChannelOccupied;
use Ringverb\Laravel\Events\ClientEventReceived;
use Ringverb\Laravel\Events\MemberAdded;
use Ringverb\Laravel\Testing\TestServer;
use RuntimeException;

final class RealServerTest extends TestCase
{
    private const APP = ['app_id' => '1001', 'key' => 'app-key', 'secret' => 'app-secret'];

    /** Publishes as pusher-php-server does. */
    private function publish(
        TestServer $server,
        string $channel,
        string $event,
        mixed $data,
        ?string $except = null,
    ): void {
        $body = json_encode(
            array_filter([
                'name' => $event,
                'channels' => [$channel],
                'data' => json_encode($data, JSON_THROW_ON_ERROR),
                'socket_id' => $except,
            ]),
            JSON_THROW_ON_ERROR,
        );
        $query = 'auth_key=app-key&auth_timestamp=' . time() . '&auth_version=1.0&body_md5=' . md5($body);
        $signature = hash_hmac('sha256', "POST\n/apps/1001/events\n{$query}", 'app-secret');
        $answer = file_get_contents(
            "http://127.0.0.1:{$server->port}/apps/1001/events?{$query}&auth_signature={$signature}",
            false,
            stream_context_create([
                'http' => ['method' => 'POST', 'header' => 'Content-Type: application/json', 'content' => $body],
            ]),
        );
        self::assertSame('{}', $answer);
    }

    public function test_an_event_reaches_the_channel_with_its_payload_and_not_its_sender(): void
    {
        $server = new TestServer(TestApplication::program(), self::APP);
        [$sender, $other, $stranger] = [$server->connect(), $server->connect(), $server->connect()];
        $sender->subscribe('private-orders.7');
        $other->subscribe('private-orders.7');
        $stranger->subscribe('news');
        $this->publish($server, 'private-orders.7', 'order.shipped', ['order' => 7], $sender->socketId);
        $other->assertReceived('private-orders.7', 'order.shipped', ['order' => 7]);
        $sender->assertNotReceived('order.shipped');
        $stranger->assertNotReceived('order.shipped');
        $server->assertPublished('private-orders.7', 'order.shipped', ['order' => 7]);
        self::assertSame($sender->socketId, $server->published()[0]['socket_id']);
        foreach (
            [
                static fn() => $other->assertReceived('private-orders.7', 'order.shipped', ['order' => 8]),
                static fn() => $other->assertNotReceived('order.shipped'),
            ]
            as $assertion
        ) {
            $failure = null;
            try {
                $assertion();
            } catch (AssertionFailedError $failure) {
            }
            self::assertNotNull($failure);
        }
        $large = str_repeat('x', 9_000);
        $this->publish($server, 'news', 'large', $large);
        self::assertSame($large, $stranger->next('large')['data']);
    }

    public function test_presence_whispers_and_refusals(): void
    {
        $server = new TestServer(TestApplication::program(), self::APP);
        [$ann, $bob] = [$server->connect(), $server->connect()];
        self::assertSame(
            1,
            $ann->subscribe('presence-room', ['user_id' => '1', 'user_info' => ['name' => 'Ann']])['presence']['count'],
        );
        $roster = $bob->subscribe('presence-room', ['user_id' => '2']);
        self::assertSame(['1', '2'], $roster['presence']['ids']);
        self::assertSame('2', $ann->next('pusher_internal:member_added')['data']['user_id']);
        $bob->whisper('presence-room', 'typing', ['name' => 'Bob']);
        self::assertSame(['name' => 'Bob'], $ann->next('client-typing')['data']);
        $bob->assertNotReceived('client-typing');
        $this->expectException(RuntimeException::class);
        $this->expectExceptionMessage('4009');
        $server->connect()->subscribe('private-x', null, ['auth' => 'app-key:wrong']);
    }

    public function test_webhooks_of_the_server_become_events(): void
    {
        $folder = TestApplication::folder();
        $port = CommandsTest::freePort();
        $log = $folder . '/events';
        touch($log);
        $output = ['file', $folder . '/log', 'a'];
        $endpoint = proc_open(
            [PHP_BINARY, '-S', "127.0.0.1:{$port}", __DIR__ . '/webhook-endpoint.php'],
            [['file', '/dev/null', 'r'], $output, $output],
            $pipes,
            null,
            ['WEBHOOK_LOG' => $log] + getenv(),
        );
        try {
            // The server retries until the endpoint is there.
            $server = new TestServer(
                TestApplication::program(),
                self::APP + [
                    'webhooks' => [['url' => "http://127.0.0.1:{$port}/ringverb/webhook"]],
                ],
            );
            $client = $server->connect();
            $client->subscribe('presence-room', ['user_id' => '1']);
            $server->connect()->subscribe('private-x');
            $client->whisper('presence-room', 'typing', ['a' => 1]);
            $wanted = [ChannelOccupied::class => 2, MemberAdded::class => 1, ClientEventReceived::class => 1];
            $deadline = microtime(true) + 30;
            do {
                $lines = array_map(
                    static fn(string $line): array => json_decode($line, true),
                    file($log, FILE_IGNORE_NEW_LINES) ?: [],
                );
                $counts = array_count_values(array_column($lines, 0));
                self::assertLessThan($deadline, microtime(true), $server->log() . file_get_contents($folder . '/log'));
                usleep(20_000);
                $missing = array_filter(
                    $wanted,
                    static fn(int $count, string $class): bool => ($counts[$class] ?? 0) < $count,
                    ARRAY_FILTER_USE_BOTH,
                );
            } while ($missing !== []);
            $events = array_column($lines, 1, 0);
            self::assertSame('1', $events[MemberAdded::class]['userId']);
            self::assertSame('client-typing', $events[ClientEventReceived::class]['event']);
            self::assertSame($client->socketId, $events[ClientEventReceived::class]['socketId']);
        } finally {
            proc_terminate($endpoint, 15);
            proc_close($endpoint);
            TestApplication::remove($folder);
        }
    }
}
