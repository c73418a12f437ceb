<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Testing;

use PHPUnit\Framework\Assert;
use RuntimeException;

/**
 * The real server on a free port of this host, for a feature test. It has one worker, so an event that was accepted is
 * delivered before the answer to a later ping; `TestClient` uses that to see what did not arrive.
 */
final class TestServer
{
    private const START_SECONDS_MAX = 20.0;

    public readonly int $port;

    /** @var resource|null */
    private $process;

    private readonly string $folder;

    /** @param array{app_id: string, key: string, secret: string} $app */
    public function __construct(string $program, public readonly array $app)
    {
        $this->folder = sys_get_temp_dir() . '/ringverb-test-' . bin2hex(random_bytes(6));
        if (!mkdir($this->folder, 0700)) {
            throw new RuntimeException("Cannot make {$this->folder}.");
        }
        $configuration = $this->folder . '/server.json';
        touch($configuration);
        chmod($configuration, 0600);
        file_put_contents(
            $configuration,
            json_encode(
                [
                    'server' => ['host' => '127.0.0.1', 'port' => 0],
                    'apps' => [$app + ['allowed_origins' => ['*']]],
                ],
                JSON_THROW_ON_ERROR,
            ),
        );
        $process = proc_open(
            [
                $program,
                'start',
                '--laravel-config',
                $configuration,
                '--env-file',
                '/dev/null',
                '--print-events',
                'json',
                '--workers',
                '1',
            ],
            [
                ['file', '/dev/null', 'r'],
                ['file', $this->folder . '/events', 'w'],
                ['file', $this->folder . '/log', 'w'],
            ],
            $pipes,
            $this->folder,
            [
                'RINGVERB_ADMIN' => 'off',
                'RINGVERB_TAKEOVER' => 'false',
                'RINGVERB_LOG_FORMAT' => 'text',
                'PATH' => (string) getenv('PATH'),
            ],
        );
        if ($process === false) {
            throw new RuntimeException("Cannot run {$program}.");
        }
        $this->process = $process;
        $this->port = $this->awaitPort();
    }

    public function __destruct()
    {
        $this->stop();
    }

    public function connect(): TestClient
    {
        return new TestClient($this->port, $this->app, $this->log(...));
    }

    /** @return list<array{app_id: string, event: string, channel: string, data: mixed, socket_id?: string}> */
    public function published(): array
    {
        $events = [];
        foreach (file($this->folder . '/events', FILE_IGNORE_NEW_LINES | FILE_SKIP_EMPTY_LINES) ?: [] as $line) {
            $event = json_decode($line, true, 512, JSON_THROW_ON_ERROR);
            $event['data'] = json_decode($event['data'], true) ?? $event['data'];
            $events[] = $event;
        }

        return $events;
    }

    /** @param mixed $data compared if it is given */
    public function assertPublished(string $channel, string $event, mixed $data = null): self
    {
        // The line of an event is written a moment after its answer.
        $deadline = microtime(true) + TestClient::SECONDS_MAX;
        do {
            foreach ($this->published() as $published) {
                if (
                    $published['channel'] === $channel &&
                    $published['event'] === $event &&
                    ($data === null || $published['data'] == $data)
                ) {
                    Assert::assertTrue(true);

                    return $this;
                }
            }
            usleep(10_000);
        } while (microtime(true) < $deadline);
        Assert::fail(
            "The server accepted no {$event} on {$channel} like this. It accepted: " . json_encode($this->published()),
        );
    }

    /** What the server logged. */
    public function log(): string
    {
        return (string) @file_get_contents($this->folder . '/log');
    }

    public function stop(): void
    {
        if ($this->process === null) {
            return;
        }
        proc_terminate($this->process, 15);
        proc_close($this->process);
        $this->process = null;
        array_map('unlink', glob($this->folder . '/*') ?: []);
        @rmdir($this->folder);
    }

    private function awaitPort(): int
    {
        $deadline = microtime(true) + self::START_SECONDS_MAX;
        while (microtime(true) < $deadline) {
            if (preg_match('~^\s+address\s+127\.0\.0\.1:(\d+)~m', $this->log(), $match) === 1) {
                return (int) $match[1];
            }
            if (!proc_get_status($this->process)['running']) {
                break;
            }
            usleep(10_000);
        }
        $log = $this->log();
        $this->stop();

        throw new RuntimeException("The test server did not start: {$log}");
    }
}
