<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Events;

use DateTimeImmutable;
use InvalidArgumentException;

/** What a webhook of the server reports. Events of one channel arrive in their order. */
abstract class WebhookEvent
{
    /** @param DateTimeImmutable $createdAt when the server made the request, by its own clock */
    final public function __construct(
        public readonly string $appId,
        public readonly string $channel,
        public readonly DateTimeImmutable $createdAt,
    ) {}

    /**
     * @param  array<array-key, mixed>  $event
     *
     * @throws InvalidArgumentException if a field is missing or has another type
     */
    public static function parse(array $event, string $appId, DateTimeImmutable $createdAt): self
    {
        $class = match ($event['name'] ?? null) {
            'channel_occupied' => ChannelOccupied::class,
            'channel_vacated' => ChannelVacated::class,
            'member_added' => MemberAdded::class,
            'member_removed' => MemberRemoved::class,
            'client_event' => ClientEventReceived::class,
            'cache_miss' => CacheMissed::class,
            'subscription_count' => SubscriptionCountChanged::class,
            default => throw new InvalidArgumentException('the name of an event is not known'),
        };
        $parsed = new $class($appId, self::text($event, 'channel'), $createdAt);
        $parsed->fill($event);

        return $parsed;
    }

    /** @param array<array-key, mixed> $event */
    protected function fill(array $event): void {}

    /** @param array<array-key, mixed> $event */
    final protected static function text(array $event, string $name): string
    {
        $value = $event[$name] ?? null;

        return is_string($value) ? $value : throw new InvalidArgumentException("{$name} of an event is no text");
    }

    /** @param array<array-key, mixed> $event */
    final protected static function optionalText(array $event, string $name): ?string
    {
        return isset($event[$name]) ? self::text($event, $name) : null;
    }
}
