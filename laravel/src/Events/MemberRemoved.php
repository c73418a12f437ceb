<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Events;

/** The last connection of a user to a presence channel is gone, over all nodes. */
final class MemberRemoved extends WebhookEvent
{
    public string $userId;

    protected function fill(array $event): void
    {
        $this->userId = self::text($event, 'user_id');
    }
}
