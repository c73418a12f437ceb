<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Tests;

use Illuminate\Container\Container;
use Illuminate\Contracts\Broadcasting\Factory as BroadcastFactory;
use PHPUnit\Framework\TestCase;
use Ringverb\Laravel\Health\RingverbCheck;
use RuntimeException;
use Spatie\Health\Checks\Result;
use Throwable;

require_once __DIR__ . '/health.php';

final class HealthTest extends TestCase
{
    protected function tearDown(): void
    {
        Container::setInstance(null);
    }

    /** The result of a check beside a broadcaster whose request ends like that. */
    private function result(object|null $answer, ?Throwable $failure = null): Result
    {
        $pusher = new class ($answer, $failure) {
            public function __construct(private readonly ?object $answer, private readonly ?Throwable $failure) {}

            public function get(string $path): ?object
            {
                HealthTest::assertSame('/connections', $path);

                return $this->failure === null ? $this->answer : throw $this->failure;
            }
        };
        $reverb = new class ($pusher) {
            public function __construct(private readonly object $pusher) {}

            public function getPusher(): object
            {
                return $this->pusher;
            }
        };

        return $this->check($answer === null && $failure === null ? new class {} : $reverb);
    }

    private function check(object $broadcaster): Result
    {
        $factory = $this->createMock(BroadcastFactory::class);
        $factory->method('connection')->willReturn($broadcaster);
        $container = new Container();
        $container->instance(BroadcastFactory::class, $factory);
        Container::setInstance($container);

        return RingverbCheck::new()->run();
    }

    public function testAServerThatAnswersIsHealthyAndItsConnectionsAreShown(): void
    {
        $result = $this->result((object) ['connections' => 17]);
        self::assertSame('ok', (string) (is_object($result->status) ? $result->status->value : $result->status));
        self::assertSame('17 connections', $result->shortSummary);
    }

    /** @dataProvider failures */
    #[\PHPUnit\Framework\Attributes\DataProvider('failures')]
    public function testAFailureNamesWhatToChangeAndNoSignedAddress(?Throwable $failure, string $expected): void
    {
        $result = $this->result(null, $failure);
        self::assertSame('failed', (string) (is_object($result->status) ? $result->status->value : $result->status));
        self::assertStringContainsString($expected, $result->notificationMessage);
        self::assertStringNotContainsString('auth_signature', $result->notificationMessage);
    }

    /** @return array<string, array{?Throwable, string}> */
    public static function failures(): array
    {
        return [
            'another secret' => [new RuntimeException('Invalid signature', 401), 'key or secret'],
            'another app' => [new RuntimeException('No matching application', 404), 'compare REVERB_APP_ID'],
            'no server' => [
                new RuntimeException('Connection refused for http://a.test/apps/1?auth_signature=0f'),
                'no answer (Connection refused): does the server run',
            ],
            'another broadcaster' => [null, 'the default broadcasting connection is not reverb'],
        ];
    }
}
