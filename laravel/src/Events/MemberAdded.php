<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Events;

/** A user joined a presence channel: the first connection of that user, over all nodes. */
final class MemberAdded extends WebhookEvent
{
    public string $userId;

    protected function fill(array $event): void
    {
        $this->userId = self::text($event, 'user_id');
    }
}
