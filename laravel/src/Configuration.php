<?php

declare(strict_types=1);

namespace Ringverb\Laravel;

use BackedEnum;
use Illuminate\Contracts\Config\Repository;
use Illuminate\Contracts\Container\Container;
use JsonException;
use Ringverb\Laravel\Exceptions\ConfigurationException;
use Stringable;
use Throwable;

/**
 * The effective config('reverb') and the apps of Reverb's ApplicationProvider, as `ringverb start --laravel-config`
 * reads them. Values that JSON cannot have (closures, objects) are left out.
 */
final class Configuration
{
    private const PROVIDER = 'Laravel\Reverb\Contracts\ApplicationProvider';

    public function __construct(private readonly Container $container, private readonly Repository $config) {}

    /**
     * For the commands that help against missing credentials. `install:broadcasting --reverb` sets BROADCAST_CONNECTION
     * without them if laravel/reverb is installed. Then the connection is a TypeError, because its key is null.
     */
    public static function allowMissingCredentials(Repository $config): void
    {
        $connection = 'broadcasting.connections.' . $config->get('broadcasting.default');
        if (!in_array($config->get("{$connection}.driver"), ['reverb', 'pusher'], true)) {
            return;
        }
        foreach (['key', 'secret', 'app_id'] as $name) {
            $config->set("{$connection}.{$name}", $config->get("{$connection}.{$name}") ?? '');
        }
    }

    /** @throws ConfigurationException */
    public function json(): string
    {
        $server = $this->plain((array) $this->config->get('reverb.servers.reverb', []));
        try {
            return json_encode(
                ['server' => (object) $server, 'apps' => $this->apps()],
                JSON_THROW_ON_ERROR | JSON_PRETTY_PRINT | JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE,
            ) . "\n";
        } catch (JsonException $exception) {
            // The message of the exception has no value in it.
            throw new ConfigurationException(
                "config('reverb') cannot be written as JSON: {$exception->getMessage()}",
                previous: $exception,
            );
        }
    }

    /**
     * @return list<array<string, mixed>>
     *
     * @throws ConfigurationException
     */
    public function apps(): array
    {
        $apps = array_map(fn(array $app): array => $this->plain($this->withOwnOptions($app)), $this->known());
        $provider = $this->provider();
        if ($apps === [] && $provider !== 'config') {
            throw new ConfigurationException(
                "The ApplicationProvider \"{$provider}\" (config/reverb.php, apps.provider) has no app: add one.",
            );
        }
        if ($apps === []) {
            throw new ConfigurationException(
                'No app is configured: set REVERB_APP_ID, REVERB_APP_KEY and REVERB_APP_SECRET in .env ' .
                    '(php artisan ringverb:install does), then php artisan config:clear.',
            );
        }

        return $apps;
    }

    /**
     * How PHP reaches the server for each app, as `BroadcastManager::pusher()` takes it.
     *
     * @return list<array{app_id: string, key: string, secret: string, options: array<string, mixed>}>
     *
     * @throws ConfigurationException
     */
    public function clients(): array
    {
        return array_map(
            static fn(array $app): array => [
                'app_id' => (string) $app['app_id'],
                'key' => (string) ($app['key'] ?? ''),
                'secret' => (string) ($app['secret'] ?? ''),
                'options' => array_diff_key((array) ($app['options'] ?? []), ['ringverb' => true]),
            ],
            $this->known(),
        );
    }

    private function provider(): string
    {
        return (string) $this->config->get('reverb.apps.provider', 'config');
    }

    /** The port of a start without options. */
    public function port(): int
    {
        return (int) $this->config->get('reverb.servers.reverb.port', 8080);
    }

    public function host(): string
    {
        return (string) $this->config->get('reverb.servers.reverb.host', '0.0.0.0');
    }

    /**
     * @return list<array<string, mixed>> apps with an id, and with all of their options
     *
     * @throws ConfigurationException
     */
    private function known(): array
    {
        $configured = array_values(array_filter((array) $this->config->get('reverb.apps.apps', []), 'is_array'));
        $apps = $this->container->bound(self::PROVIDER) ? $this->provided($configured) : $configured;

        return array_values(
            array_filter($apps, static fn(array $app): bool => ($app['app_id'] ?? '') !== ''),
        );
    }

    /**
     * Apps of any ApplicationProvider, such as one that reads a database. Options that only ringverb has are taken
     * from the entry of config/reverb.php with the same id.
     *
     * @param  list<array<string, mixed>>  $configured
     * @return list<array<string, mixed>>
     *
     * @throws ConfigurationException
     */
    private function provided(array $configured): array
    {
        // The provider of Reverb fails for an entry without credentials. `apps` has a better message for it.
        $incomplete = static fn(array $app): bool => array_diff(
            ['app_id', 'key', 'secret'],
            array_keys(array_filter($app, static fn(mixed $value): bool => $value !== null && $value !== '')),
        ) !== [];
        if (
            $this->provider() === 'config' &&
            array_filter($configured, $incomplete) !== []
        ) {
            return array_values(array_filter($configured, static fn(array $app): bool => !$incomplete($app)));
        }
        $extras = array_column($configured, null, 'app_id');
        $apps = [];
        foreach ($this->fromProvider() as $app) {
            $values = [
                'app_id' => $app->id(),
                'key' => $app->key(),
                'secret' => $app->secret(),
                'ping_interval' => $app->pingInterval(),
                'activity_timeout' => $app->activityTimeout(),
                'allowed_origins' => $app->allowedOrigins(),
                'max_message_size' => $app->maxMessageSize(),
                'options' => $app->options(),
            ];
            // Older versions of Reverb do not have these.
            foreach (
                [
                    'max_connections' => 'maxConnections',
                    'accept_client_events_from' => 'acceptClientEventsFrom',
                    'rate_limiting' => 'rateLimiting',
                ]
                as $key => $method
            ) {
                if (method_exists($app, $method)) {
                    $values[$key] = $app->{$method}();
                }
            }
            $apps[] = $values + (array) ($extras[$app->id()] ?? []);
        }

        return $apps;
    }

    /**
     * @return iterable<object>
     *
     * @throws ConfigurationException
     */
    private function fromProvider(): iterable
    {
        try {
            return $this->container->make(self::PROVIDER)->all();
        } catch (Throwable $exception) {
            throw new ConfigurationException(
                "The ApplicationProvider \"{$this->provider()}\" (config/reverb.php, apps.provider) failed: " .
                    "{$exception->getMessage()}",
                previous: $exception,
            );
        }
    }

    /**
     * `options` is for PHP's side, except for `options.ringverb`: so a provider can give an app options of ringverb.
     *
     * @param  array<string, mixed>  $app
     * @return array<string, mixed>
     */
    private function withOwnOptions(array $app): array
    {
        $options = (array) ($app['options'] ?? []);
        unset($app['options']);

        return (array) ($options['ringverb'] ?? []) + $app;
    }

    /**
     * @param  array<array-key, mixed>  $values
     * @return array<array-key, mixed>
     */
    private function plain(array $values): array
    {
        $plain = [];
        foreach ($values as $key => $value) {
            $value = match (true) {
                $value instanceof BackedEnum => $value->value,
                $value instanceof Stringable => (string) $value,
                default => $value,
            };
            if (is_array($value)) {
                $plain[$key] = $this->plain($value);
            } elseif ($value === null || is_scalar($value)) {
                $plain[$key] = $value;
            }
        }

        return $plain;
    }
}
