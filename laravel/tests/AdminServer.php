<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Tests;

use Ringverb\Laravel\Testing\TestClient;

/** The real server with an admin listener. */
final class AdminServer
{
    public const TOKEN = '0123456789abcdef-token';

    private const APP = ['app_id' => '1001', 'key' => 'app-key', 'secret' => 'app-secret'];

    public readonly string $admin;

    private readonly string $folder;

    private readonly RunningProgram $program;

    /** @param bool $isSocketFile otherwise a free port of the loopback */
    public function __construct(bool $isSocketFile = false)
    {
        $this->folder = TestApplication::folder();
        $admin = $isSocketFile ? "unix:{$this->folder}/admin.sock" : '127.0.0.1:0';
        $server = ['host' => '127.0.0.1', 'port' => 0, 'workers' => 1, 'admin' => $admin, 'admin_token' => self::TOKEN];
        $configuration = $this->folder . '/server.json';
        file_put_contents(
            $configuration,
            json_encode(['server' => $server, 'apps' => [self::APP + ['allowed_origins' => ['*']]]]),
        );
        chmod($configuration, 0600);
        $this->program = new RunningProgram(
            $this->folder,
            ['--laravel-config', $configuration, '--env-file', '/dev/null'],
        );
        $this->admin = $isSocketFile ? $admin : (string) $this->program->admin;
    }

    public function connect(): TestClient
    {
        return $this->program->connect(self::APP);
    }

    public function stop(): void
    {
        $this->program->stop();
        TestApplication::remove($this->folder);
    }
}
