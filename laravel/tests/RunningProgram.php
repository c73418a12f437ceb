<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Tests;

use Ringverb\Laravel\Testing\TestClient;
use RuntimeException;

/** The real server, started in a folder of the test with these arguments, until the start message. */
final class RunningProgram
{
    public readonly int $port;

    public readonly ?string $admin;

    /** @var resource */
    private $process;

    /** @param list<string> $arguments after `start` */
    public function __construct(private readonly string $folder, array $arguments)
    {
        $log = ['file', $folder . '/log', 'w'];
        $process = proc_open(
            [TestApplication::program(), 'start', ...$arguments],
            [['file', '/dev/null', 'r'], $log, $log],
            $pipes,
            $folder,
            [
                'RINGVERB_TAKEOVER' => 'false',
                'RINGVERB_LOG_FORMAT' => 'text',
                'PATH' => (string) getenv('PATH'),
            ],
        );
        if ($process === false) {
            throw new RuntimeException('Cannot run the server.');
        }
        $this->process = $process;
        $deadline = microtime(true) + 20;
        // The last line of the message.
        while (!str_contains($this->log(), 'Press Ctrl+C')) {
            if (microtime(true) > $deadline || !proc_get_status($process)['running']) {
                throw new RuntimeException("The server did not start: {$this->log()}");
            }
            usleep(10_000);
        }
        preg_match('/^\s+address\s+\S+:(\d+)$/m', $this->log(), $address);
        preg_match('~^\s+admin\s+(?:http://)?([^\s,]+)~m', $this->log(), $admin);
        $this->port = (int) ($address[1] ?? 0);
        $this->admin = $admin[1] ?? null;
    }

    /** @param array{app_id: string, key: string, secret: string} $app */
    public function connect(array $app): TestClient
    {
        return new TestClient($this->port, $app, $this->log(...));
    }

    public function log(): string
    {
        return (string) file_get_contents($this->folder . '/log');
    }

    public function stop(): void
    {
        proc_terminate($this->process, 15);
        proc_close($this->process);
    }
}
