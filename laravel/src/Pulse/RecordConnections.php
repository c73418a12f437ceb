<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Pulse;

use Laravel\Pulse\Events\IsolatedBeat;
use Laravel\Pulse\Pulse;

/** Pulse's `ReverbConnections` of config/pulse.php: open connections of each app. */
final class RecordConnections
{
    /** @var class-string */
    public string $listen = IsolatedBeat::class;

    public function __construct(private readonly Pulse $pulse, private readonly ServerCounts $counts) {}

    public function record(IsolatedBeat $event): void
    {
        $now = $event->time->getTimestamp();
        if (!$this->counts->isDue('connections', $now)) {
            return;
        }
        foreach ($this->counts->connections() as $id => $connections) {
            $this->pulse->record('reverb_connections', (string) $id, $connections, $now)->avg()->max()->onlyBuckets();
        }
        $this->counts->throwProblem();
    }
}
