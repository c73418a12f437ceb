<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Webhooks;

use Ringverb\Laravel\Events\WebhookEvent;

/** A request of the server whose signature is right. */
final class Webhook
{
    /** @param list<WebhookEvent> $events those that were not handled before */
    public function __construct(
        public readonly array $events,
        public readonly string $signature,
    ) {}
}
