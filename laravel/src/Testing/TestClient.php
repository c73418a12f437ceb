<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Testing;

use Closure;
use PHPUnit\Framework\Assert;
use RuntimeException;
use stdClass;

/** A WebSocket client for tests: enough of RFC 6455 and of the Pusher protocol for assertions. */
final class TestClient
{
    /** Time in which an answer must come. */
    public const SECONDS_MAX = 10.0;

    private const OPCODE_TEXT = 1;

    private const OPCODE_CLOSE = 8;

    private const OPCODE_PING = 9;

    private const OPCODE_PONG = 10;

    public readonly string $socketId;

    /** @var resource */
    private $stream;

    private string $input = '';

    /** The handshake is over, and the input has frames. */
    private bool $isOpen = false;

    /** @var list<array<string, mixed>> events that arrived and that no method has returned yet */
    private array $received = [];

    /**
     * @param  array{app_id: string, key: string, secret: string}  $app
     * @param  Closure(): string  $log  the log of the server, for messages
     */
    public function __construct(int $port, private readonly array $app, private readonly Closure $log)
    {
        $stream = stream_socket_client("tcp://127.0.0.1:{$port}", $code, $message, self::SECONDS_MAX);
        if ($stream === false) {
            throw new RuntimeException("Cannot connect to the test server: {$message}");
        }
        $this->stream = $stream;
        stream_set_blocking($stream, false);
        $key = base64_encode(random_bytes(16));
        $this->write(
            "GET /app/{$app['key']}?protocol=7&client=php&version=1 HTTP/1.1\r\nHost: 127.0.0.1:{$port}\r\n" .
                "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n" .
                "Sec-WebSocket-Key: {$key}\r\n" .
                "Origin: http://127.0.0.1\r\n\r\n",
        );
        $this->readUntil(fn(): bool => str_contains($this->input, "\r\n\r\n"), 'the handshake');
        [$head, $this->input] = explode("\r\n\r\n", $this->input, 2);
        $accept = base64_encode(sha1($key . '258EAFA5-E914-47DA-95CA-C5AB0DC85B11', true));
        if (!str_starts_with($head, 'HTTP/1.1 101') || stripos($head, "Sec-WebSocket-Accept: {$accept}") === false) {
            throw new RuntimeException("The test server refused the handshake: {$head}");
        }
        $this->isOpen = true;
        // The first frames can be in the bytes of the handshake.
        $this->parseFrames();
        $this->socketId = $this->next('pusher:connection_established')['data']['socket_id'];
    }

    /**
     * Subscribes with a signature of the app, and waits for the confirmation. To test routes/channels.php, request
     * /broadcasting/auth in the test and pass its answer as $auth.
     *
     * @param  array<string, mixed>|null  $member  user_id and user_info of a presence channel
     * @param  array{auth: string, channel_data?: string}|null  $auth
     * @return mixed the data of the confirmation: the roster of a presence channel
     */
    public function subscribe(string $channel, ?array $member = null, ?array $auth = null): mixed
    {
        $data = ['channel' => $channel];
        if ($auth !== null) {
            $data += $auth;
        } elseif (preg_match('/^(private|presence)-/', $channel) === 1) {
            $parts = [$this->socketId, $channel];
            if ($member !== null) {
                $parts[] = $data['channel_data'] = json_encode($member, JSON_THROW_ON_ERROR);
            }
            $signature = hash_hmac('sha256', implode(':', $parts), $this->app['secret']);
            $data['auth'] = "{$this->app['key']}:{$signature}";
        }
        $this->send('pusher:subscribe', $data);

        return $this->next('pusher_internal:subscription_succeeded')['data'];
    }

    /** A client event to the other subscribers. The name has no `client-`. */
    public function whisper(string $channel, string $event, mixed $data): void
    {
        $message = ['event' => "client-{$event}", 'channel' => $channel, 'data' => $data];
        $this->writeFrame(self::OPCODE_TEXT, json_encode($message, JSON_THROW_ON_ERROR));
    }

    /**
     * The next event of this name; earlier ones of other names stay.
     *
     * @return array{event: string, data: mixed, channel?: string}
     */
    public function next(string $event): array
    {
        $found = null;
        $this->readUntil(function () use ($event, &$found): bool {
            foreach ($this->received as $index => $message) {
                if ($message['event'] === $event || $message['event'] === 'pusher:error') {
                    array_splice($this->received, $index, 1);
                    $found = $message;

                    return true;
                }
            }

            return false;
        }, "the event {$event}");
        if ($found['event'] !== $event) {
            throw new RuntimeException("Instead of {$event} came an error: " . json_encode($found['data']));
        }

        return $found;
    }

    /** Waits until everything that the server has accepted so far has arrived. */
    public function sync(): self
    {
        $this->send('pusher:ping', new stdClass());
        $this->next('pusher:pong');

        return $this;
    }

    /** @param mixed $data compared if it is given */
    public function assertReceived(string $channel, string $event, mixed $data = null): self
    {
        $this->sync();
        foreach ($this->received as $message) {
            if (
                $message['event'] === $event &&
                ($message['channel'] ?? null) === $channel &&
                ($data === null || $message['data'] == $data)
            ) {
                Assert::assertTrue(true);

                return $this;
            }
        }
        Assert::fail("{$event} did not arrive on {$channel} like this. There arrived: " . json_encode($this->received));
    }

    public function assertNotReceived(string $event): self
    {
        $this->sync();
        $names = array_column($this->received, 'event');
        Assert::assertNotContains($event, $names, "{$event} arrived: " . json_encode($this->received));

        return $this;
    }

    private function send(string $event, mixed $data): void
    {
        $this->writeFrame(self::OPCODE_TEXT, json_encode(['event' => $event, 'data' => $data], JSON_THROW_ON_ERROR));
    }

    private function writeFrame(int $opcode, string $payload): void
    {
        $length = strlen($payload);
        $head =
            chr(0x80 | $opcode) .
            match (true) {
                $length < 126 => chr(0x80 | $length),
                $length < 65_536 => chr(0x80 | 126) . pack('n', $length),
                default => chr(0x80 | 127) . pack('J', $length),
            };
        $mask = random_bytes(4);
        $this->write($head . $mask . ($payload ^ str_pad('', $length, $mask)));
    }

    private function write(string $bytes): void
    {
        $deadline = microtime(true) + self::SECONDS_MAX;
        while ($bytes !== '') {
            $written = @fwrite($this->stream, $bytes);
            if ($written === false || microtime(true) > $deadline) {
                throw new RuntimeException('The test server closed the connection. Its log: ' . ($this->log)());
            }
            $bytes = substr($bytes, $written);
        }
    }

    /** @param callable(): bool $isDone */
    private function readUntil(callable $isDone, string $what): void
    {
        $deadline = microtime(true) + self::SECONDS_MAX;
        while (!$isDone()) {
            $remaining = $deadline - microtime(true);
            $read = [$this->stream];
            $none = null;
            if ($remaining <= 0 || stream_select($read, $none, $none, (int) $remaining, 100_000) === false) {
                throw new RuntimeException(
                    "{$what} did not arrive within " .
                        self::SECONDS_MAX .
                        ' s. There arrived: ' .
                        json_encode($this->received) .
                        ' The log of the server: ' .
                        ($this->log)(),
                );
            }
            $bytes = fread($this->stream, 65_536);
            if ($bytes === '' && feof($this->stream)) {
                throw new RuntimeException("The connection was closed before {$what}: " . json_encode($this->received));
            }
            $this->input .= (string) $bytes;
            $this->parseFrames();
        }
    }

    private function parseFrames(): void
    {
        while ($this->isOpen && strlen($this->input) >= 2) {
            $opcode = ord($this->input[0]) & 0x0f;
            $length = ord($this->input[1]) & 0x7f;
            $offset = 2;
            if ($length >= 126) {
                $size = $length === 126 ? 2 : 8;
                if (strlen($this->input) < 2 + $size) {
                    return;
                }
                $length = unpack($size === 2 ? 'n' : 'J', substr($this->input, 2, $size))[1];
                $offset += $size;
            }
            if (strlen($this->input) < $offset + $length) {
                return;
            }
            $payload = substr($this->input, $offset, $length);
            $this->input = substr($this->input, $offset + $length);
            $this->frame($opcode, $payload);
        }
    }

    private function frame(int $opcode, string $payload): void
    {
        if ($opcode === self::OPCODE_TEXT) {
            $message = json_decode($payload, true, 512, JSON_THROW_ON_ERROR);
            if (is_string($message['data'] ?? null)) {
                $message['data'] = json_decode($message['data'], true) ?? $message['data'];
            }
            $this->received[] = $message + ['data' => null];
        } elseif ($opcode === self::OPCODE_PING) {
            $this->writeFrame(self::OPCODE_PONG, $payload);
        } elseif ($opcode === self::OPCODE_CLOSE) {
            $code = strlen($payload) >= 2 ? unpack('n', $payload)[1] : 0;
            $this->received[] = [
                'event' => 'pusher:error',
                'data' => ['code' => $code, 'message' => substr($payload, 2)],
            ];
        }
    }
}
