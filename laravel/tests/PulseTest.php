<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Tests;

use Carbon\CarbonImmutable;
use Illuminate\Contracts\Broadcasting\Factory as BroadcastFactory;
use Illuminate\Contracts\Cache\Factory as CacheFactory;
use Laravel\Pulse\Entry;
use Laravel\Pulse\Events\IsolatedBeat;
use Laravel\Pulse\Pulse;
use PHPUnit\Framework\TestCase;
use Ringverb\Laravel\Configuration;
use Ringverb\Laravel\Pulse\RecordConnections;
use Ringverb\Laravel\Pulse\RecordMessages;
use Ringverb\Laravel\Pulse\ServerCounts;
use RuntimeException;

require_once __DIR__ . '/pulse.php';

final class PulseTest extends TestCase
{
    /** @var list<Entry> */
    private array $entries = [];

    /** @var array<string, object|null> the answers of the server by app id; null: it does not answer */
    public array $answers = [];

    private TestApplication $application;

    protected function setUp(): void
    {
        $config = TestApplication::config();
        $config['reverb']['servers']['reverb']['pulse_ingest_interval'] = 15;
        $config['reverb']['apps']['apps'][] = ['app_id' => '1002', 'key' => 'other', 'secret' => 'x'];
        $this->application = new TestApplication($config, '/nowhere');
    }

    /** @param class-string<RecordConnections>|class-string<RecordMessages> $recorder */
    private function beat(string $recorder, int $now): void
    {
        $pulse = $this->getMockBuilder(Pulse::class)->disableOriginalConstructor()->onlyMethods(['record'])->getMock();
        $pulse
            ->method('record')
            ->willReturnCallback(
                fn(string $type, string $key, ?int $value, int $time): Entry => ($this->entries[] = new Entry(
                    $time,
                    $type,
                    $key,
                    $value,
                )),
            );
        $application = $this->application;
        $counts = new class (
            $application->make(Configuration::class),
            $application->make(BroadcastFactory::class),
            $application->make(CacheFactory::class),
            $application->make('config'),
            $this,
        ) extends ServerCounts {
            public function __construct($configuration, $broadcast, $cache, $config, private PulseTest $test)
            {
                parent::__construct($configuration, $broadcast, $cache, $config);
            }

            protected function ask(array $client): object
            {
                return $this->test->answers[$client['app_id']] ?? throw new RuntimeException('no answer');
            }
        };
        (new $recorder($pulse, $counts))->record(new IsolatedBeat(CarbonImmutable::createFromTimestamp($now)));
    }

    /** @return list<array{string, string, int|null, int, list<string>}> */
    private function recorded(): array
    {
        $rows = array_map(
            static fn(Entry $entry): array => [
                $entry->type,
                $entry->key,
                $entry->value,
                $entry->timestamp,
                $entry->aggregations(),
            ],
            $this->entries,
        );
        foreach ($this->entries as $entry) {
            self::assertTrue($entry->isOnlyBuckets());
        }
        $this->entries = [];

        return $rows;
    }

    public function test_connections_of_each_app_are_recorded_every_15_s(): void
    {
        $this->answers = ['1001' => (object) ['connections' => 7], '1002' => (object) ['connections' => 0]];
        foreach ([1_000, 1_001, 1_014, 1_015] as $now) {
            $this->beat(RecordConnections::class, $now);
        }
        self::assertSame(
            [
                ['reverb_connections', '1001', 7, 1_000, ['avg', 'max']],
                ['reverb_connections', '1002', 0, 1_000, ['avg', 'max']],
                ['reverb_connections', '1001', 7, 1_015, ['avg', 'max']],
                ['reverb_connections', '1002', 0, 1_015, ['avg', 'max']],
            ],
            $this->recorded(),
        );
    }

    public function test_messages_are_the_difference_of_two_answers_and_nothing_after_a_restart(): void
    {
        $count = static fn(int $sent, int $received): object => (object) [
            'connections' => 1,
            'messages_sent' => $sent,
            'messages_received' => $received,
        ];
        $steps = [
            [1_000, $count(100, 10), []],
            [1_015, $count(130, 12), [[30, 2]]],
            [1_030, $count(130, 12), [[0, 0]]],
            // A node has started again.
            [1_045, $count(5, 1), []],
            [1_060, $count(9, 2), [[4, 1]]],
        ];
        foreach ($steps as [$now, $answer, $expected]) {
            $this->answers = ['1001' => $answer, '1002' => (object) ['connections' => 0]];
            $this->beat(RecordMessages::class, $now);
            $rows = [];
            foreach ($expected as [$sent, $received]) {
                $rows[] = ['reverb_message:sent', '1001', $sent, $now, ['sum']];
                $rows[] = ['reverb_message:received', '1001', $received, $now, ['sum']];
            }
            self::assertSame($rows, $this->recorded());
        }
    }

    public function test_an_app_whose_server_does_not_answer_is_reported_after_the_others_are_recorded(): void
    {
        $this->answers = ['1002' => (object) ['connections' => 3]];
        $problem = null;
        try {
            $this->beat(RecordConnections::class, 1_000);
        } catch (RuntimeException $problem) {
        }
        self::assertSame('no answer', $problem?->getMessage());
        self::assertSame([['reverb_connections', '1002', 3, 1_000, ['avg', 'max']]], $this->recorded());
    }
}
