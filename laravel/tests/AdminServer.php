<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Tests;

use Ringverb\Laravel\Testing\TestClient;
use RuntimeException;

/** The real server with an admin listener. */
final class AdminServer
{
    public const TOKEN = '0123456789abcdef-token';

    private const APP = ['app_id' => '1001', 'key' => 'app-key', 'secret' => 'app-secret'];

    public readonly string $admin;

    private readonly int $port;

    private readonly string $folder;

    /** @var resource */
    private $process;

    /** @param bool $isSocketFile otherwise a free port of the loopback */
    public function __construct(bool $isSocketFile = false)
    {
        $this->folder = TestApplication::folder();
        $admin = $isSocketFile ? "unix:{$this->folder}/admin.sock" : '127.0.0.1:0';
        $configuration = $this->folder . '/server.json';
        file_put_contents(
            $configuration,
            json_encode([
                'server' => [
                    'host' => '127.0.0.1',
                    'port' => 0,
                    'workers' => 1,
                    'admin' => $admin,
                    'admin_token' => self::TOKEN,
                ],
                'apps' => [self::APP + ['allowed_origins' => ['*']]],
            ]),
        );
        chmod($configuration, 0600);
        $log = $this->folder . '/log';
        $process = proc_open(
            [TestApplication::program(), 'start', '--laravel-config', $configuration, '--env-file', '/dev/null'],
            [['file', '/dev/null', 'r'], ['file', $log, 'w'], ['file', $log, 'w']],
            $pipes,
            $this->folder,
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
        $pattern = '~^\s+address\s+127\.0\.0\.1:(\d+)$.*^\s+admin\s+(?:http://)?([^\s,]+)~ms';
        $deadline = microtime(true) + 20;
        while (preg_match($pattern, (string) file_get_contents($log), $match) !== 1) {
            if (microtime(true) > $deadline || !proc_get_status($process)['running']) {
                throw new RuntimeException('The server did not start: ' . file_get_contents($log));
            }
            usleep(10_000);
        }
        $this->port = (int) $match[1];
        $this->admin = $isSocketFile ? $admin : $match[2];
    }

    public function connect(): TestClient
    {
        $log = fn(): string => (string) file_get_contents("{$this->folder}/log");

        return new TestClient($this->port, self::APP, $log);
    }

    public function stop(): void
    {
        proc_terminate($this->process, 15);
        proc_close($this->process);
        TestApplication::remove($this->folder);
    }
}
