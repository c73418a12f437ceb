<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Testing;

/** One event that the application broadcast, as it would have gone to the server. */
final class RecordedBroadcast
{
    /**
     * @param  list<string>  $channels  names on the wire, such as private-orders.1
     * @param  array<array-key, mixed>  $data
     * @param  string|null  $exceptSocket  the connection that toOthers() leaves out
     */
    public function __construct(
        public readonly string $event,
        public readonly array $channels,
        public readonly array $data,
        public readonly ?string $exceptSocket,
    ) {}
}
