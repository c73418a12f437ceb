<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Exceptions;

use RuntimeException;

/** A request to the webhook route that is refused. */
final class WebhookException extends RuntimeException
{
    public function __construct(public readonly int $status, string $message)
    {
        parent::__construct($message);
    }
}
