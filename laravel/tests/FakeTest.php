<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Tests;

use Illuminate\Broadcasting\BroadcastEvent;
use Illuminate\Broadcasting\Channel;
use Illuminate\Broadcasting\InteractsWithSockets;
use Illuminate\Broadcasting\PrivateChannel;
use Illuminate\Contracts\Broadcasting\Factory as BroadcastFactory;
use Illuminate\Contracts\Broadcasting\ShouldBroadcast;
use Illuminate\Http\Request;
use PHPUnit\Framework\AssertionFailedError;
use PHPUnit\Framework\TestCase;
use Ringverb\Laravel\Ringverb;
use Ringverb\Laravel\Testing\BroadcastFake;
use Ringverb\Laravel\Testing\RecordedBroadcast;
use Symfony\Component\HttpKernel\Exception\AccessDeniedHttpException;

final class FakeTest extends TestCase
{
    private TestApplication $application;

    private BroadcastFake $fake;

    protected function setUp(): void
    {
        $this->application = new TestApplication(TestApplication::config(), '/nowhere');
        // As routes/channels.php does, before the test asks for the fake.
        $broadcaster = $this->application->make(BroadcastFactory::class)->connection();
        $broadcaster->channel(
            'orders.{id}',
            static fn(object $user, string $id): bool => $user->getAuthIdentifier() === (int) $id,
        );
        $broadcaster->channel('room', static fn(object $user): array => ['name' => 'Ann']);
        $this->fake = Ringverb::fake();
    }

    private function broadcast(object $event): void
    {
        (new BroadcastEvent($event))->handle($this->application->make(BroadcastFactory::class));
    }

    private function shipped(): object
    {
        return new class implements ShouldBroadcast {
            use InteractsWithSockets;

            public int $order = 7;

            /** @return list<Channel> */
            public function broadcastOn(): array
            {
                return [new PrivateChannel('orders.7'), new Channel('news')];
            }

            public function broadcastAs(): string
            {
                return 'order.shipped';
            }
        };
    }

    public function test_what_an_event_broadcasts_is_recorded_as_on_the_wire(): void
    {
        $this->fake->assertNothingBroadcast();
        $event = $this->shipped();
        $event->socket = '1.2';
        $this->broadcast($event);
        $this->fake
            ->assertBroadcast('order.shipped')
            ->assertBroadcastOn('private-orders.7', 'order.shipped', ['order' => 7])
            ->assertBroadcastOn(new Channel('news'), 'order.shipped')
            ->assertBroadcastToOthers('order.shipped', '1.2')
            ->assertBroadcastTimes('order.shipped', 1)
            ->assertNotBroadcast('order.paid')
            ->assertNotBroadcast(
                'order.shipped',
                static fn(RecordedBroadcast $broadcast): bool => $broadcast->data['order'] === 8,
            );
    }

    public function test_each_assertion_fails_when_it_does_not_hold(): void
    {
        $this->broadcast($this->shipped());
        foreach (
            [
                fn() => $this->fake->assertBroadcast('other'),
                fn() => $this->fake->assertBroadcast('order.shipped', static fn(): bool => false),
                fn() => $this->fake->assertBroadcastOn('orders.7', 'order.shipped'),
                fn() => $this->fake->assertBroadcastOn('news', 'order.shipped', ['order' => 8]),
                fn() => $this->fake->assertBroadcastToOthers('order.shipped'),
                fn() => $this->fake->assertBroadcastTimes('order.shipped', 2),
                fn() => $this->fake->assertNotBroadcast('order.shipped'),
                fn() => $this->fake->assertNothingBroadcast(),
            ]
            as $index => $assertion
        ) {
            $failure = null;
            try {
                $assertion();
            } catch (AssertionFailedError $failure) {
            }
            self::assertNotNull($failure, "assertion {$index} passed");
        }
    }

    private function authorize(string $channel, ?int $user): mixed
    {
        $request = Request::create('/broadcasting/auth', 'POST', ['channel_name' => $channel, 'socket_id' => '1.2']);
        $request->setUserResolver(
            static fn() => $user === null
                ? null
                : new class ($user) {
                    public function __construct(private readonly int $id) {}

                    public function getAuthIdentifier(): int
                    {
                        return $this->id;
                    }
                },
        );

        return $this->application->make(BroadcastFactory::class)->connection()->auth($request);
    }

    public function test_callbacks_of_channels_count_and_answers_are_signed(): void
    {
        self::assertSame(
            ['auth' => 'app-key:' . hash_hmac('sha256', '1.2:private-orders.7', 'app-secret')],
            $this->authorize('private-orders.7', 7),
        );
        $data = '{"user_id":"7","user_info":{"name":"Ann"}}';
        self::assertSame(
            [
                'auth' => 'app-key:' . hash_hmac('sha256', '1.2:presence-room:' . $data, 'app-secret'),
                'channel_data' => $data,
            ],
            $this->authorize('presence-room', 7),
        );
        foreach (
            [['private-orders.7', 8], ['private-orders.7', null], ['private-unknown', 7], ['', 7]]
            as [$channel, $user]
        ) {
            try {
                $this->authorize($channel, $user);
                self::fail("{$channel} was authorized");
            } catch (AccessDeniedHttpException) {
                self::assertTrue(true);
            }
        }
    }
}
