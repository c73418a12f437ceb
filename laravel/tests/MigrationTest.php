<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Tests;

use PHPUnit\Framework\TestCase;
use Ringverb\Laravel\Server\Binary;

/**
 * docs/laravel-migration.md, with a configuration of each other server: each of its keys has a row that names the
 * option used here, and the server starts with the result and without a warning.
 */
final class MigrationTest extends TestCase
{
    private const APP = ['app_id' => 'shop', 'key' => 'shop-key', 'secret' => 'shop-secret-0123'];

    private string $folder;

    protected function setUp(): void
    {
        $this->folder = TestApplication::folder();
    }

    protected function tearDown(): void
    {
        TestApplication::remove($this->folder);
    }

    /** @return array<string, array<string, array{string, string, string}>> by heading: key, its value, option, value */
    private static function moves(): array
    {
        $app = static fn(string $id, string $key, string $secret): array => [
            [$id, self::APP['app_id'], 'REVERB_APP_ID', self::APP['app_id']],
            [$key, self::APP['key'], 'REVERB_APP_KEY', self::APP['key']],
            [$secret, self::APP['secret'], 'REVERB_APP_SECRET', self::APP['secret']],
        ];

        return [
            'From soketi' => [
                ...$app('SOKETI_DEFAULT_APP_ID', 'SOKETI_DEFAULT_APP_KEY', 'SOKETI_DEFAULT_APP_SECRET'),
                ['SOKETI_PORT', '6001', 'REVERB_SERVER_PORT', '6001'],
                ['SOKETI_DEFAULT_APP_MAX_CONNS', '500', 'REVERB_APP_MAX_CONNECTIONS', '500'],
                [
                    'SOKETI_DEFAULT_APP_ENABLE_CLIENT_MESSAGES',
                    'true',
                    'REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM',
                    'members',
                ],
                ['SOKETI_DEFAULT_APP_MAX_BACKEND_EVENTS_PER_SEC', '100', 'RINGVERB_PUBLISHES_PER_SECOND_MAX', '100'],
                ['SOKETI_DEFAULT_APP_MAX_CLIENT_EVENTS_PER_SEC', '20', 'RINGVERB_CLIENT_EVENTS_PER_SECOND_MAX', '20'],
                ['SOKETI_DEFAULT_APP_ENABLED', 'true', 'RINGVERB_APP_ENABLED', 'true'],
            ],
            'From the hosted service (Pusher)' => [
                ...$app('PUSHER_APP_ID', 'PUSHER_APP_KEY', 'PUSHER_APP_SECRET'),
                ['client events', 'on', 'accept_client_events_from', 'members'],
                ['subscription counting', 'on', 'RINGVERB_SUBSCRIPTION_COUNT', 'true'],
                ['authorized connections', 'on', 'RINGVERB_AUTHORIZE_WITHIN', '30'],
                ['webhooks', 'a URL', 'RINGVERB_WEBHOOK_URL', 'https://shop.example.com/ringverb/webhook'],
                ['webhooks', 'kinds', 'RINGVERB_WEBHOOK_EVENTS', 'member_added,member_removed'],
            ],
            'From laravel-websockets' => [
                ['apps.*.id', 'shop', 'app_id', self::APP['app_id']],
                ['key', 'shop-key', 'key', self::APP['key']],
                ['secret', 'shop-secret-0123', 'secret', self::APP['secret']],
                ['apps.*.capacity', '500', 'max_connections', '500'],
                ['apps.*.enable_client_messages', 'false', 'accept_client_events_from', 'none'],
                ['apps.*.path', '/ws', 'REVERB_SERVER_PATH', '/ws'],
                ['allowed_origins', 'shop.example.com', 'allowed_origins', 'shop.example.com'],
                ['max_request_size_in_kb', '250', 'REVERB_MAX_REQUEST_SIZE', '256000'],
                ['LARAVEL_WEBSOCKETS_PORT', '6001', 'REVERB_SERVER_PORT', '6001'],
            ],
            'From sockudo' => [
                ...$app('SOCKUDO_DEFAULT_APP_ID', 'SOCKUDO_DEFAULT_APP_KEY', 'SOCKUDO_DEFAULT_APP_SECRET'),
                ['SOCKUDO_ENABLE_CLIENT_MESSAGES', 'true', 'REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM', 'members'],
                ['SOCKUDO_DEFAULT_APP_MAX_CONNECTIONS', '500', 'REVERB_APP_MAX_CONNECTIONS', '500'],
                ['SOCKUDO_DEFAULT_APP_ALLOWED_ORIGINS', '*', 'RINGVERB_ALLOWED_ORIGINS', '*'],
                ['X_MAX_CLIENT_EVENTS_PER_SECOND', '20', 'RINGVERB_CLIENT_EVENTS_PER_SECOND_MAX', '20'],
                ['X_MAX_BACKEND_EVENTS_PER_SECOND', '100', 'RINGVERB_PUBLISHES_PER_SECOND_MAX', '100'],
                ['X_MAX_PRESENCE_MEMBERS_PER_CHANNEL', '100', 'RINGVERB_PRESENCE_MEMBERS_MAX', '100'],
                ['X_MAX_PRESENCE_MEMBER_SIZE_IN_KB', '2', 'RINGVERB_MEMBER_SIZE_MAX', '2048'],
                ['X_MAX_CHANNEL_NAME_LENGTH', '200', 'RINGVERB_CHANNEL_NAME_LENGTH_MAX', '200'],
                ['X_MAX_EVENT_NAME_LENGTH', '200', 'RINGVERB_EVENT_NAME_LENGTH_MAX', '200'],
                ['X_MAX_EVENT_CHANNELS_AT_ONCE', '100', 'RINGVERB_EVENT_CHANNELS_MAX', '100'],
                ['X_MAX_EVENT_BATCH_SIZE', '10', 'RINGVERB_BATCH_EVENTS_MAX', '10'],
                ['X_MAX_EVENT_PAYLOAD_IN_KB', '100', 'RINGVERB_EVENT_PAYLOAD_MAX', '102400'],
                ['PORT', '6001', 'REVERB_SERVER_PORT', '6001'],
                ['HOST', '127.0.0.1', 'REVERB_SERVER_HOST', '127.0.0.1'],
            ],
        ];
    }

    /** @return list<array{string, string}> the cells of the tables below a heading */
    private static function rows(string $heading): array
    {
        $page = (string) file_get_contents(__DIR__ . '/../../docs/laravel-migration.md');
        self::assertStringContainsString("## {$heading}\n", $page);
        $section = explode("\n## ", explode("## {$heading}\n", $page)[1])[0];
        preg_match_all('/^\| (.+?) \| (.+?) \|$/m', $section, $matches, PREG_SET_ORDER);

        return array_map(static fn(array $match): array => [$match[1], $match[2]], $matches);
    }

    /** `_KEY` and `..._MAX_X` of a row stand for names that end so. */
    private static function names(string $cell, string $key): bool
    {
        if (!preg_match('/^[A-Z_]+$|[.*_a-z]+$/', $key) || str_contains($key, ' ')) {
            return str_contains($cell, $key);
        }
        preg_match_all('/`([^`=]+)/', $cell, $spans);
        foreach ($spans[1] as $span) {
            $end = ltrim($span, '.');
            if ($span === $key || ($end[0] === '_' && str_ends_with($key, $end))) {
                return true;
            }
        }

        return str_contains($cell, $key) && !str_contains($cell, '`');
    }

    /** @return array<string, array{string}> */
    public static function servers(): array
    {
        $headings = array_keys(self::moves());

        return array_combine($headings, array_map(static fn(string $heading): array => [$heading], $headings));
    }

    /** @dataProvider servers */
    #[\PHPUnit\Framework\Attributes\DataProvider('servers')]
    public function test_each_key_has_a_row_and_the_server_starts_with_the_result(string $heading): void
    {
        $rows = self::rows($heading);
        $app = [];
        $names = [];
        foreach (self::moves()[$heading] as [$key, , $option, $value]) {
            $found = array_filter($rows, static fn(array $row): bool => self::names($row[0], $key) &&
                str_contains($row[1], $option));
            self::assertNotSame([], $found, "{$heading} has no row for {$key} with {$option}");
            $option === strtolower($option) ? ($app[$option] = $value) : ($names[$option] = $value);
        }
        // Every port of the start is free, and the others are those of the table.
        $port = $names['REVERB_SERVER_PORT'] ?? null;
        $lines = array_map(static fn(string $n, string $v): string => "{$n}={$v}", array_keys($names), $names);
        file_put_contents($this->folder . '/.env', implode("\n", $lines) . "\n");
        $arguments = ['--env-file', $this->folder . '/.env'];
        if ($app !== []) {
            $app['allowed_origins'] = [$app['allowed_origins'] ?? '*'];
            $app += self::APP;
            $server = array_filter([
                'path' => $names['REVERB_SERVER_PATH'] ?? null,
                'max_request_size' => $names['REVERB_MAX_REQUEST_SIZE'] ?? null,
                'port' => $port,
            ]);
            $file = $this->folder . '/laravel.json';
            file_put_contents($file, json_encode(['server' => (object) $server, 'apps' => [$app]]));
            chmod($file, 0600);
            array_push($arguments, '--laravel-config', $file);
        }
        [$code, $output] = Binary::run(
            [TestApplication::program(), 'check', '--offline', '--all', ...$arguments],
            $this->folder,
            ['PATH' => (string) getenv('PATH')],
        );
        self::assertSame(0, $code, $output);
        self::assertStringNotContainsString('warning', $output);
        if ($port !== null) {
            self::assertMatchesRegularExpression("/^port = {$port}\b/m", $output);
        }
        $program = new RunningProgram($this->folder, [...$arguments, '--host=127.0.0.1', '--port=0', '--workers=1']);
        try {
            self::assertStringNotContainsString('warning', $program->log());
            $isOpen = ($app['allowed_origins'] ?? ['*']) === ['*'];
            if ($isOpen) {
                $program->connect(self::APP)->subscribe('private-orders.1');
            }
        } finally {
            $program->stop();
        }
    }

    public function test_each_option_that_the_guides_name_exists(): void
    {
        $options = (string) file_get_contents(__DIR__ . '/../../docs/OPTIONS.md');
        $others = [
            // Of the package.
            'RINGVERB_BINARY',
            'RINGVERB_STATE',
            'RINGVERB_CONSOLE_PATH',
            'RINGVERB_WEBHOOK_PATH',
            // What the page has as a wrong name.
            'REVERB_ENCRYPTION_KEY',
        ];
        foreach (['laravel.md', 'laravel-migration.md', 'laravel-errors.md'] as $page) {
            $text = (string) file_get_contents(__DIR__ . "/../../docs/{$page}");
            preg_match_all('/(?<![A-Z_])R(?:EVERB|INGVERB)_[A-Z_0-9]*[A-Z0-9]/', $text, $names);
            self::assertGreaterThan(10, count($names[0]));
            foreach (array_diff(array_unique($names[0]), $others) as $name) {
                self::assertStringContainsString("`{$name}`", $options, "{$page} names {$name}");
            }
        }
    }
}
