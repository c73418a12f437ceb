<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Tests;

use Illuminate\Config\Repository;
use PHPUnit\Framework\TestCase;
use Ringverb\Laravel\Configuration;
use Ringverb\Laravel\Exceptions\ConfigurationException;

final class ConfigurationTest extends TestCase
{
    private const PROVIDER = 'Laravel\Reverb\Contracts\ApplicationProvider';

    /** @param array<string, mixed> $config */
    private function application(array $config): TestApplication
    {
        return new TestApplication($config, '/nowhere');
    }

    /** @return array<string, mixed> */
    private function written(TestApplication $application): array
    {
        return json_decode($application->make(Configuration::class)->json(), true, 512, JSON_THROW_ON_ERROR);
    }

    public function test_hand_edited_values_are_written_and_values_without_json_are_left_out(): void
    {
        $config = TestApplication::config(9000);
        $config['reverb']['servers']['reverb']['max_request_size'] = 20_000;
        $config['reverb']['servers']['reverb']['loop'] = static fn(): int => 1;
        $config['reverb']['apps']['apps'][0]['allowed_origins'] = ['example.com'];
        $written = $this->written($this->application($config));
        self::assertSame(9000, $written['server']['port']);
        self::assertSame(20_000, $written['server']['max_request_size']);
        self::assertArrayNotHasKey('loop', $written['server']);
        self::assertSame(['example.com'], $written['apps'][0]['allowed_origins']);
    }

    public function test_without_a_server_an_empty_object_is_written_and_not_a_list(): void
    {
        $config = TestApplication::config();
        unset($config['reverb']['servers']);
        $json = $this->application($config)->make(Configuration::class)->json();
        self::assertStringContainsString('"server": {}', $json);
    }

    public function test_apps_of_any_provider_are_written_with_the_options_that_only_this_server_has(): void
    {
        $config = TestApplication::config();
        $config['reverb']['apps']['provider'] = 'database';
        $config['reverb']['apps']['apps'][0]['cache_ttl'] = 77;
        $application = $this->application($config);
        $app = static fn(string $id, array $options): object => new class ($id, $options) {
            /** @param array<string, mixed> $options */
            public function __construct(private readonly string $id, private readonly array $options) {}

            public function __call(string $name, array $arguments): mixed
            {
                return match ($name) {
                    'id' => $this->id,
                    'key' => 'key-' . $this->id,
                    'secret' => 'secret',
                    'pingInterval' => 11,
                    'activityTimeout' => 30,
                    'allowedOrigins' => ['*'],
                    'maxMessageSize' => 500,
                    'options' => $this->options,
                };
            }

            public function maxConnections(): ?int
            {
                return 5;
            }
        };
        $apps = [$app('1001', []), $app('2', ['host' => 'x', 'ringverb' => ['presence_members_max' => 3]])];
        $application->bind(
            self::PROVIDER,
            static fn(): object => new class ($apps) {
                /** @param list<object> $apps */
                public function __construct(private readonly array $apps) {}

                /** @return list<object> */
                public function all(): array
                {
                    return $this->apps;
                }
            },
        );
        [$first, $second] = $this->written($application)['apps'];
        self::assertSame([77, 11, 'key-1001'], [$first['cache_ttl'], $first['ping_interval'], $first['key']]);
        self::assertSame([3, 5, '2'], [$second['presence_members_max'], $second['max_connections'], $second['app_id']]);
        self::assertArrayNotHasKey('options', $second);
        self::assertArrayNotHasKey('cache_ttl', $second);
    }

    public function test_missing_credentials_become_empty_ones_and_others_stay(): void
    {
        $config = static fn(string $driver): Repository => new Repository([
            'broadcasting' => [
                'default' => 'x',
                'connections' => ['x' => ['driver' => $driver, 'key' => null, 'secret' => 's']],
            ],
        ]);
        Configuration::allowMissingCredentials($reverb = $config('reverb'));
        Configuration::allowMissingCredentials($log = $config('log'));
        self::assertSame(
            ['driver' => 'reverb', 'key' => '', 'secret' => 's', 'app_id' => ''],
            $reverb->get('broadcasting.connections.x'),
        );
        self::assertNull($log->get('broadcasting.connections.x.key'));
    }

    public function test_a_provider_that_fails_is_named(): void
    {
        $application = new TestApplication(TestApplication::config(), '/nowhere');
        $application->make('config')->set('reverb.apps.provider', 'database');
        $application->bind('Laravel\Reverb\Contracts\ApplicationProvider', static fn(): object => new class {
            /** @return list<object> */
            public function all(): array
            {
                throw new \RuntimeException('Connection refused');
            }
        });
        $this->expectException(ConfigurationException::class);
        $this->expectExceptionMessage('The ApplicationProvider "database" (config/reverb.php, apps.provider) failed: ' .
            'Connection refused');
        $application->make(Configuration::class)->json();
    }

    public function test_a_missing_app_is_an_error_that_names_what_to_set(): void
    {
        foreach ([[], [['app_id' => null, 'key' => null, 'secret' => null]], [['app_id' => '']]] as $apps) {
            $config = TestApplication::config();
            $config['reverb']['apps']['apps'] = $apps;
            try {
                $this->application($config)->make(Configuration::class)->json();
                self::fail('an app was found');
            } catch (ConfigurationException $exception) {
                self::assertStringContainsString('set REVERB_APP_ID, REVERB_APP_KEY', $exception->getMessage());
            }
        }
    }
}
