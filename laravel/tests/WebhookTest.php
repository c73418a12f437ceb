<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Tests;

use Illuminate\Cache\ArrayStore;
use Illuminate\Cache\Repository;
use Illuminate\Events\Dispatcher;
use Illuminate\Http\Request;
use Illuminate\Support\Carbon;
use PHPUnit\Framework\TestCase;
use Ringverb\Laravel\Configuration;
use Ringverb\Laravel\Events\CacheMissed;
use Ringverb\Laravel\Events\ChannelOccupied;
use Ringverb\Laravel\Events\ChannelVacated;
use Ringverb\Laravel\Events\ClientEventReceived;
use Ringverb\Laravel\Events\MemberAdded;
use Ringverb\Laravel\Events\MemberRemoved;
use Ringverb\Laravel\Events\SubscriptionCountChanged;
use Ringverb\Laravel\Events\WebhookEvent;
use Ringverb\Laravel\Webhooks\WebhookController;
use Ringverb\Laravel\Webhooks\WebhookVerifier;
use RuntimeException;

final class WebhookTest extends TestCase
{
    private const NOW = 1_800_000_000;

    private Dispatcher $events;

    private WebhookVerifier $verifier;

    /** @var list<WebhookEvent> */
    private array $received = [];

    protected function setUp(): void
    {
        $application = new TestApplication(TestApplication::config(), '/nowhere');
        $this->events = new Dispatcher($application);
        $this->events->listen('*', function (string $name, array $payload): void {
            $this->received[] = $payload[0];
        });
        $this->verifier = new WebhookVerifier(
            $application->make(Configuration::class),
            new Repository(new ArrayStore()),
            600,
            static fn(): float => self::NOW,
        );
    }

    /** @return array{int, string} status and body of the answer */
    private function post(string $body, string $key = 'app-key', ?string $signature = null): array
    {
        $request = Request::create(
            '/ringverb/webhook',
            'POST',
            [],
            [],
            [],
            [
                'HTTP_X_PUSHER_KEY' => $key,
                'HTTP_X_PUSHER_SIGNATURE' => $signature ?? hash_hmac('sha256', $body, 'app-secret'),
            ],
            $body,
        );
        $response = (new WebhookController())($request, $this->verifier, $this->events);

        return [$response->getStatusCode(), (string) $response->getContent()];
    }

    /** @param list<array<string, mixed>> $events */
    private static function body(array $events, int $age = 0): string
    {
        return json_encode(['time_ms' => (self::NOW - $age) * 1000 + 5, 'events' => $events], JSON_THROW_ON_ERROR);
    }

    public function test_each_kind_becomes_an_event_of_its_own_class(): void
    {
        [$status] = $this->post(
            self::body([
                ['name' => 'channel_occupied', 'channel' => 'a'],
                ['name' => 'channel_vacated', 'channel' => 'b'],
                ['name' => 'member_added', 'channel' => 'presence-a', 'user_id' => '7'],
                ['name' => 'member_removed', 'channel' => 'presence-a', 'user_id' => '8'],
                [
                    'name' => 'client_event',
                    'channel' => 'presence-a',
                    'event' => 'client-typing',
                    'data' => '{"a":1}',
                    'socket_id' => '1.2',
                    'user_id' => '7',
                ],
                ['name' => 'cache_miss', 'channel' => 'cache-a'],
                ['name' => 'subscription_count', 'channel' => 'a', 'subscription_count' => 3],
            ]),
        );
        self::assertSame(204, $status);
        self::assertSame(
            [
                ChannelOccupied::class,
                ChannelVacated::class,
                MemberAdded::class,
                MemberRemoved::class,
                ClientEventReceived::class,
                CacheMissed::class,
                SubscriptionCountChanged::class,
            ],
            array_map('get_class', $this->received),
        );
        [$occupied, , $added, $removed, $client, , $count] = $this->received;
        self::assertSame(['1001', 'a'], [$occupied->appId, $occupied->channel]);
        self::assertSame(self::NOW . '.005', $occupied->createdAt->format('U.v'));
        self::assertSame(['7', '8', 3], [$added->userId, $removed->userId, $count->subscriptionCount]);
        self::assertSame(
            ['client-typing', ['a' => 1], '1.2', '7'],
            [$client->event, $client->decoded(), $client->socketId, $client->userId],
        );
    }

    public function test_a_wrong_signature_or_key_is_refused(): void
    {
        $body = self::body([['name' => 'channel_occupied', 'channel' => 'a']]);
        $right = hash_hmac('sha256', $body, 'app-secret');
        self::assertSame(401, $this->post($body, 'app-key', hash_hmac('sha256', $body, ''))[0]);
        self::assertSame(401, $this->post($body, 'app-key', '')[0]);
        self::assertSame(401, $this->post($body, 'other-key', $right)[0]);
        self::assertSame(401, $this->post($body, '', $right)[0]);
        // The key of no app, with the empty secret that it would have.
        self::assertSame(401, $this->post($body, 'other-key', hash_hmac('sha256', $body, ''))[0]);
        self::assertSame(401, $this->post($body . ' ', 'app-key', $right)[0]);
        self::assertSame([], $this->received);
    }

    public function test_a_request_out_of_the_window_is_refused(): void
    {
        $events = [['name' => 'channel_occupied', 'channel' => 'a']];
        self::assertSame(204, $this->post(self::body($events, 599))[0]);
        [$status, $text] = $this->post(self::body($events, 700));
        self::assertSame(403, $status);
        self::assertStringContainsString('700 s old, and 600 s are the limit', $text);
        self::assertSame(403, $this->post(self::body($events, -700))[0]);
        self::assertCount(1, $this->received);
    }

    public function test_the_same_request_is_handled_once(): void
    {
        $body = self::body([['name' => 'channel_occupied', 'channel' => 'a']]);
        self::assertSame([204, 204], [$this->post($body)[0], $this->post($body)[0]]);
        self::assertCount(1, $this->received);
    }

    public function test_a_request_whose_listener_failed_is_handled_again(): void
    {
        $body = self::body([['name' => 'channel_occupied', 'channel' => 'a']]);
        $fails = true;
        $this->events->listen(ChannelOccupied::class, static function () use (&$fails): void {
            if ($fails) {
                throw new RuntimeException('the listener failed');
            }
        });
        try {
            $this->post($body);
            self::fail('the exception was swallowed');
        } catch (RuntimeException $exception) {
            self::assertSame('the listener failed', $exception->getMessage());
        }
        $fails = false;
        $this->received = [];
        self::assertSame(204, $this->post($body)[0]);
        self::assertCount(1, $this->received);
    }

    public function test_a_repetition_waits_for_the_first_request_and_is_handled_if_its_process_was_lost(): void
    {
        $body = self::body([['name' => 'channel_occupied', 'channel' => 'a']]);
        $during = null;
        $this->events->listen(ChannelOccupied::class, function () use (&$during, $body): void {
            $during ??= $this->post($body);
        });
        self::assertSame(204, $this->post($body)[0]);
        // The server sends it again after 503. If it were 204, an event whose listener fails later would be lost.
        self::assertSame(503, $during[0]);
        self::assertStringContainsString('are being handled', $during[1]);
        self::assertSame(204, $this->post($body)[0]);
        self::assertCount(1, $this->received);
        // A process that ends within a listener neither answers nor throws.
        $lost = self::body([['name' => 'channel_occupied', 'channel' => 'b']]);
        $signature = hash_hmac('sha256', $lost, 'app-secret');
        self::assertCount(1, $this->verifier->verify('app-key', $signature, $lost)->events);
        self::assertSame(503, $this->post($lost)[0]);
        Carbon::setTestNow(Carbon::now()->addSeconds(61));
        try {
            self::assertSame(204, $this->post($lost)[0]);
            self::assertCount(2, $this->received);
            self::assertSame([204, 204], [$this->post($lost)[0], $this->post($body)[0]]);
            self::assertCount(2, $this->received);
        } finally {
            Carbon::setTestNow();
        }
    }

    /** @return list<array<string, mixed>> client events "NAME@CHANNEL" */
    private static function clientEvents(string ...$names): array
    {
        return array_map(static function (string $name): array {
            [$event, $channel] = explode('@', $name);

            return compact('channel', 'event') + ['name' => 'client_event', 'data' => '', 'socket_id' => '1.2'];
        }, $names);
    }

    /** @return list<string> what the listeners received since the last call */
    private function received(): array
    {
        $names = array_map(
            static fn(WebhookEvent $event): string => "{$event->event}@{$event->channel}",
            $this->received,
        );
        $this->received = [];

        return $names;
    }

    public function test_a_retry_in_parts_of_a_handled_request_is_not_dispatched_again(): void
    {
        // Channels are split, then the events of one channel. Equal events of one request are each dispatched.
        $all = ['1@a', '1@b', '2@a', '1@c', '1@a', '1@d'];
        self::assertSame(204, $this->post(self::body(self::clientEvents(...$all)))[0]);
        self::assertSame($all, $this->received());
        foreach ([['1@a', '1@b', '2@a', '1@a'], ['1@c', '1@d'], ['1@b'], ['1@a', '2@a'], ['1@a'], ['2@a']] as $part) {
            self::assertSame(204, $this->post(self::body(self::clientEvents(...$part)))[0]);
            self::assertSame([], $this->received());
        }
        self::assertSame(204, $this->post(self::body(self::clientEvents('1@b'), 1))[0]);
        self::assertSame(['1@b'], $this->received(), 'the same event at another time');
    }

    public function test_later_events_that_join_a_retry_are_dispatched_and_handled_ones_are_not(): void
    {
        $this->post(self::body(self::clientEvents('1@a', '1@b')));
        self::assertSame(['1@a', '1@b'], $this->received());
        $this->post(self::body(self::clientEvents('1@a', '1@b', '2@a')));
        self::assertSame(['2@a'], $this->received());
        $this->post(self::body(self::clientEvents('1@a', '2@a', '1@a', '3@a')));
        self::assertSame(['1@a', '3@a'], $this->received());
    }

    public function test_an_event_that_is_equal_to_a_handled_one_among_others_is_not_lost(): void
    {
        // The halves of 1, 2, 1, 3 after refusals.
        $this->post(self::body(self::clientEvents('1@a', '2@a')));
        $this->post(self::body(self::clientEvents('1@a', '3@a')));
        self::assertSame(['1@a', '2@a', '1@a', '3@a'], $this->received());
    }

    public function test_a_part_waits_for_the_request_that_is_being_handled(): void
    {
        $all = self::body(self::clientEvents('1@a', '1@b'));
        $part = self::body(self::clientEvents('1@b'));
        $during = null;
        $this->events->listen(ClientEventReceived::class, function () use (&$during, $part): void {
            $during ??= $this->post($part);
        });
        self::assertSame(204, $this->post($all)[0]);
        self::assertSame(503, $during[0]);
        self::assertSame(204, $this->post($part)[0]);
        self::assertSame(['1@a', '1@b'], $this->received());
    }

    public function test_the_parts_of_a_request_whose_listener_failed_are_handled(): void
    {
        $fails = true;
        $this->events->listen(ClientEventReceived::class, static function () use (&$fails): void {
            if ($fails) {
                throw new RuntimeException('the listener failed');
            }
        });
        try {
            $this->post(self::body(self::clientEvents('1@a', '1@b')));
            self::fail('the exception was swallowed');
        } catch (RuntimeException) {
            $this->received = [];
        }
        $fails = false;
        foreach (['1@b', '1@a', '1@b'] as $part) {
            self::assertSame(204, $this->post(self::body(self::clientEvents($part)))[0]);
        }
        self::assertSame(['1@b', '1@a'], $this->received());
    }

    public function test_requests_in_another_order_are_each_handled_once(): void
    {
        $bodies = array_map(
            static fn(int $age): string => self::body([['name' => 'channel_occupied', 'channel' => "c{$age}"]], $age),
            [5, 20, 1, 20, 5, 300],
        );
        foreach ($bodies as $body) {
            self::assertSame(204, $this->post($body)[0]);
        }
        $channels = array_map(static fn(WebhookEvent $event): string => $event->channel, $this->received);
        self::assertSame(['c5', 'c20', 'c1', 'c300'], $channels);
    }

    public function test_bodies_that_are_no_webhook_are_refused_before_anything_is_dispatched(): void
    {
        $good = ['name' => 'channel_occupied', 'channel' => 'a'];
        foreach (
            [
                '',
                'null',
                '[]',
                '{"time_ms":"1","events":[]}',
                '{"events":[]}',
                self::body([$good, ['name' => 'unknown', 'channel' => 'a']]),
                self::body([$good, ['name' => 'member_added', 'channel' => 'a']]),
                self::body([$good, ['name' => 'member_added', 'channel' => 'a', 'user_id' => 7]]),
                self::body([$good, ['name' => 'channel_occupied', 'channel' => ['a']]]),
                self::body([$good, ['name' => 'subscription_count', 'channel' => 'a', 'subscription_count' => '3']]),
                str_replace('{"name":"channel_occupied","channel":"a"}', '1', self::body([$good])),
            ]
            as $body
        ) {
            self::assertSame(400, $this->post($body)[0], $body);
        }
        self::assertSame([], $this->received);
    }
}
