<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Events;

use InvalidArgumentException;

/** The number of subscriptions to a channel has changed. */
final class SubscriptionCountChanged extends WebhookEvent
{
    public int $subscriptionCount;

    protected function fill(array $event): void
    {
        $count = $event['subscription_count'] ?? null;
        $this->subscriptionCount = is_int($count)
            ? $count
            : throw new InvalidArgumentException('subscription_count of an event is no number');
    }
}
