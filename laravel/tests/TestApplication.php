<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Tests;

use Illuminate\Broadcasting\BroadcastManager;
use Illuminate\Cache\ArrayStore;
use Illuminate\Cache\Repository as CacheRepository;
use Illuminate\Config\Repository;
use Illuminate\Container\Container;
use Illuminate\Contracts\Broadcasting\Factory as BroadcastFactory;
use Illuminate\Contracts\Cache\Factory as CacheFactory;
use Illuminate\Contracts\Cache\Repository as CacheContract;
use Illuminate\Contracts\Config\Repository as ConfigContract;
use Ringverb\Laravel\Configuration;
use Ringverb\Laravel\Server\Binary;
use Ringverb\Laravel\Server\ProcessTable;
use Ringverb\Laravel\Server\Replacement;
use Ringverb\Laravel\Server\ServerFiles;

/** What the package needs of an application, made of Illuminate's components without laravel/framework. */
final class TestApplication extends Container
{
    /** @param array<string, mixed> $config */
    public function __construct(array $config, private readonly string $folder)
    {
        self::setInstance($this);
        $this->instance(Container::class, $this);
        $this->instance(\Illuminate\Contracts\Container\Container::class, $this);
        $this->instance('config', $repository = new Repository($config));
        $this->instance(ConfigContract::class, $repository);
        $cache = new CacheRepository(new ArrayStore());
        $this->instance(
            CacheFactory::class,
            new class ($cache) implements CacheFactory {
                public function __construct(private readonly CacheContract $cache) {}

                public function store($name = null)
                {
                    return $this->cache;
                }
            },
        );
        $this->instance(BroadcastFactory::class, new BroadcastManager($this));
        $state = $folder . '/storage';
        $this->instance(Configuration::class, new Configuration($this, $repository));
        $binary = $config['ringverb']['binary'] ?? self::program();
        $this->instance(Binary::class, new Binary($binary, $state));
        $this->instance(ServerFiles::class, new ServerFiles($state));
        $this->instance(ProcessTable::class, $processes = new ProcessTable());
        $this->instance(Replacement::class, new Replacement($processes));
    }

    /** The server under test: `tests/run` of this package names it. */
    public static function program(): string
    {
        $program = (string) getenv('RINGVERB_BIN');
        if (!is_executable($program)) {
            throw new \RuntimeException('RINGVERB_BIN must name the program: start the tests with laravel/tests/run.');
        }

        return $program;
    }

    /** @return array<string, mixed> */
    public static function config(int $port = 8080): array
    {
        return [
            'reverb' => [
                'servers' => ['reverb' => ['host' => '127.0.0.1', 'port' => $port, 'options' => ['tls' => []]]],
                'apps' => [
                    'provider' => 'config',
                    'apps' => [
                        [
                            'app_id' => '1001',
                            'key' => 'app-key',
                            'secret' => 'app-secret',
                            'allowed_origins' => ['*'],
                            'ping_interval' => 60,
                            'max_message_size' => 10_000,
                        ],
                    ],
                ],
            ],
            'broadcasting' => ['default' => 'null', 'connections' => ['null' => ['driver' => 'null']]],
        ];
    }

    public static function folder(): string
    {
        $folder = sys_get_temp_dir() . '/ringverb-package-' . bin2hex(random_bytes(6));
        mkdir($folder, 0700);

        return $folder;
    }

    public static function remove(string $folder): void
    {
        Binary::run(['rm', '-rf', $folder]);
    }

    public function environmentFilePath(): string
    {
        return $this->folder . '/.env';
    }

    public function runningUnitTests(): bool
    {
        return true;
    }
}
