<?php

declare(strict_types=1);

namespace Ringverb\Laravel;

use Illuminate\Container\Container;
use Illuminate\Contracts\Broadcasting\Factory as BroadcastFactory;
use Ringverb\Laravel\Exceptions\ConfigurationException;
use Ringverb\Laravel\Server\Binary;
use Ringverb\Laravel\Testing\BroadcastFake;
use Ringverb\Laravel\Testing\RecordingBroadcaster;
use Ringverb\Laravel\Testing\TestServer;

/** For tests of an application: what it broadcasts, without a server or with the real one. */
final class Ringverb
{
    private const FAKE_DRIVER = 'ringverb-fake';

    private static ?TestServer $server = null;

    /** Records what is broadcast from now on, instead of sending it, on every connection of config/broadcasting.php. */
    public static function fake(): BroadcastFake
    {
        $container = Container::getInstance();
        $config = $container->make('config');
        $manager = $container->make(BroadcastFactory::class);
        $app = self::credentials();
        $broadcaster = new RecordingBroadcaster($app['key'], $app['secret']);
        RecordingBroadcaster::copyCallbacks($manager->connection(), $broadcaster);
        $manager->extend(self::FAKE_DRIVER, static fn(): RecordingBroadcaster => $broadcaster);
        foreach (array_keys((array) $config->get('broadcasting.connections', [])) as $name) {
            $config->set("broadcasting.connections.{$name}.driver", self::FAKE_DRIVER);
            $manager->purge($name);
        }
        $config->set('broadcasting.connections.' . self::FAKE_DRIVER, ['driver' => self::FAKE_DRIVER]);
        // phpunit.xml of a Laravel application sets the connection "null", which would discard everything.
        $config->set('broadcasting.default', self::FAKE_DRIVER);

        return new BroadcastFake($broadcaster);
    }

    /**
     * The real server on a free port. It runs until the test process ends, and each call connects the application of
     * the present test with it.
     */
    public static function server(): TestServer
    {
        $container = Container::getInstance();
        self::$server ??= new TestServer($container->make(Binary::class)->path(), self::credentials());
        $config = $container->make('config');
        $manager = $container->make(BroadcastFactory::class);
        $callbacks = $manager->connection();
        $config->set('broadcasting.default', 'reverb');
        $config->set('broadcasting.connections.reverb', [
            'driver' => 'reverb',
            'key' => self::$server->app['key'],
            'secret' => self::$server->app['secret'],
            'app_id' => self::$server->app['app_id'],
            'options' => ['host' => '127.0.0.1', 'port' => self::$server->port, 'scheme' => 'http', 'useTLS' => false],
        ]);
        $manager->purge('reverb');
        RecordingBroadcaster::copyCallbacks($callbacks, $manager->connection('reverb'));

        return self::$server;
    }

    /** Ends the server of `server()`; the next call starts another one. */
    public static function stopServer(): void
    {
        self::$server?->stop();
        self::$server = null;
    }

    /** @return array{app_id: string, key: string, secret: string} of the first app, or generated ones */
    private static function credentials(): array
    {
        try {
            $app = Container::getInstance()->make(Configuration::class)->apps()[0];
        } catch (ConfigurationException) {
            $app = [];
        }
        $value = static fn(string $name, string $other): string => (string) ($app[$name] ?? '') ?: $other;

        return [
            'app_id' => $value('app_id', 'test'),
            'key' => $value('key', 'test-key'),
            'secret' => $value('secret', bin2hex(random_bytes(16))),
        ];
    }
}
