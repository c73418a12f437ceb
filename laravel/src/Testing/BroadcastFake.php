<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Testing;

use Closure;
use PHPUnit\Framework\Assert;
use Stringable;

/**
 * Assertions about what the application broadcast, by `Ringverb::fake()`. Names of events and channels are those on the
 * wire: the class name or what broadcastAs() returns, and private-orders.1. A channel may be given as an object, too.
 */
final class BroadcastFake
{
    public function __construct(private readonly RecordingBroadcaster $broadcaster) {}

    /** @return list<RecordedBroadcast> */
    public function broadcasts(?string $event = null): array
    {
        return array_values(
            array_filter(
                $this->broadcaster->broadcasts(),
                static fn(RecordedBroadcast $broadcast): bool => $event === null || $broadcast->event === $event,
            ),
        );
    }

    /** @param (Closure(RecordedBroadcast): bool)|null $matches */
    public function assertBroadcast(string $event, ?Closure $matches = null): self
    {
        Assert::assertNotEmpty(
            $this->matching($event, $matches),
            "{$event} was not broadcast" .
                ($matches === null ? '' : ' as the callback wants it') .
                "; {$this->summary()}",
        );

        return $this;
    }

    /** @param array<array-key, mixed>|null $data all of it, if it is given */
    public function assertBroadcastOn(string|Stringable $channel, string $event, ?array $data = null): self
    {
        $name = (string) $channel;
        $found = $this->matching(
            $event,
            static fn(RecordedBroadcast $broadcast): bool => in_array($name, $broadcast->channels, true),
        );
        Assert::assertNotEmpty($found, "{$event} was not broadcast on {$name}; {$this->summary()}");
        if ($data !== null) {
            $all = array_map(static fn(RecordedBroadcast $broadcast): array => $broadcast->data, $found);
            Assert::assertContainsEquals(
                $data,
                $all,
                "{$event} was broadcast on {$name} with other data: " . json_encode($all),
            );
        }

        return $this;
    }

    /** The event leaves its sender out, as toOthers() does. Without a socket id in the request, none is left out. */
    public function assertBroadcastToOthers(string $event, ?string $socketId = null): self
    {
        $found = $this->matching(
            $event,
            static fn(RecordedBroadcast $broadcast): bool => $broadcast->exceptSocket !== null &&
                ($socketId === null || $broadcast->exceptSocket === $socketId),
        );
        Assert::assertNotEmpty(
            $found,
            "{$event} leaves no connection out: does the event use InteractsWithSockets, and does the request have " .
                "X-Socket-ID? {$this->summary()}",
        );

        return $this;
    }

    public function assertBroadcastTimes(string $event, int $times): self
    {
        $count = count($this->broadcasts($event));
        Assert::assertSame($times, $count, "{$event} was broadcast {$count} times; {$this->summary()}");

        return $this;
    }

    /** @param (Closure(RecordedBroadcast): bool)|null $matches */
    public function assertNotBroadcast(string $event, ?Closure $matches = null): self
    {
        Assert::assertEmpty($this->matching($event, $matches), "{$event} was broadcast; {$this->summary()}");

        return $this;
    }

    public function assertNothingBroadcast(): self
    {
        Assert::assertEmpty($this->broadcasts(), $this->summary());

        return $this;
    }

    /**
     * @param  (Closure(RecordedBroadcast): bool)|null  $matches
     * @return list<RecordedBroadcast>
     */
    private function matching(string $event, ?Closure $matches): array
    {
        return array_values(array_filter($this->broadcasts($event), $matches ?? static fn(): bool => true));
    }

    private function summary(): string
    {
        $all = array_map(
            static fn(RecordedBroadcast $broadcast): string => $broadcast->event .
                ' on ' .
                implode(', ', $broadcast->channels),
            $this->broadcasts(),
        );

        return $all === [] ? 'nothing was broadcast' : 'broadcast were: ' . implode('; ', $all);
    }
}
