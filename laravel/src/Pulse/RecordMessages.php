<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Pulse;

use Laravel\Pulse\Events\IsolatedBeat;
use Laravel\Pulse\Pulse;

/**
 * Pulse's `ReverbMessages` of config/pulse.php. Reverb's own recorder counts PHP events, one entry for each message.
 * This one records what the server has counted, as a sum, so `sample_rate` has no meaning for it.
 */
final class RecordMessages
{
    /** @var class-string */
    public string $listen = IsolatedBeat::class;

    public function __construct(private readonly Pulse $pulse, private readonly ServerCounts $counts) {}

    public function record(IsolatedBeat $event): void
    {
        $now = $event->time->getTimestamp();
        if (!$this->counts->isDue('messages', $now)) {
            return;
        }
        foreach ($this->counts->messages() as $id => $counts) {
            foreach ($counts as $direction => $count) {
                $this->pulse->record("reverb_message:{$direction}", (string) $id, $count, $now)->sum()->onlyBuckets();
            }
        }
        $this->counts->throwProblem();
    }
}
