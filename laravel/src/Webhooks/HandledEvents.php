<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Webhooks;

use Illuminate\Contracts\Cache\Repository;

/**
 * Remembers which events were handled and which are being handled. The server retries a refused request in parts, with
 * the time of its first attempt: first by channel, later fewer events of one channel. Later events of a channel join
 * its retries. So the signature of a retry differs, and an event has no id. What a retry keeps are the app, the time,
 * and the order of the events of each channel. They identify an event here.
 *
 * One entry of the cache for each app and time has the events of its requests. One entry for each request has its
 * state, and expires if the process of the request ends without an outcome. Two requests that begin at the same moment
 * can lose an entry, which repeats an event and loses none.
 */
final class HandledEvents
{
    /** Seconds. The server retries for 300 s, so a retry after this time is handled. */
    private const HANDLING = 60;

    /** Requests with the same app and time. The oldest is forgotten, which repeats its events. */
    private const REQUESTS_MAX = 1_000;

    private const BEGUN = 'begun';

    private const HANDLED = 'handled';

    public function __construct(private readonly Repository $cache, private readonly int $windowSeconds) {}

    /**
     * Begins a request.
     *
     * @param  list<array{channel: string}>  $events  as the server sent them
     * @return list<int>|null the positions of the events to handle; null if another request with some of them is being
     *     handled
     */
    public function begin(string $signature, string $appId, int $timeMs, array $events): ?array
    {
        if (!$this->cache->add($this->stateKey($signature), self::BEGUN, self::HANDLING)) {
            return $this->cache->get($this->stateKey($signature)) === self::HANDLED ? [] : null;
        }
        [$runs, $positions] = self::runs($events);
        $key = 'ringverb:webhooks:' . hash('sha256', "{$timeMs}:{$appId}");
        $requests = (array) $this->cache->get($key, []);
        unset($requests[$signature]);
        $toHandle = [];
        foreach ($runs as $channel => $run) {
            $handled = $this->handledOf($run, (string) $channel, $requests);
            if ($handled === null) {
                $this->forget($signature);

                return null;
            }
            array_push($toHandle, ...array_slice($positions[$channel], $handled));
        }
        if ($toHandle !== []) {
            $requests[$signature] = $runs;
            $this->cache->put($key, array_slice($requests, -self::REQUESTS_MAX, null, true), $this->seconds());
        }
        // The order of the request.
        sort($toHandle);

        return $toHandle;
    }

    /** The listeners have run. */
    public function complete(string $signature): void
    {
        $this->cache->put($this->stateKey($signature), self::HANDLED, $this->seconds());
    }

    /** A listener has failed: the server sends the events again. */
    public function forget(string $signature): void
    {
        $this->cache->forget($this->stateKey($signature));
    }

    /**
     * How many events at the start of a run were handled. A run repeats another one if it is a part of it, or if it
     * begins with it. Runs that only share an event can have equal events of their own.
     *
     * @param  array<string, array<array-key, string>>  $requests  loses runs whose request has failed
     * @return int|null null if they are being handled
     */
    private function handledOf(string $run, string $channel, array &$requests): ?int
    {
        $handled = 0;
        foreach ($requests as $signature => $runs) {
            $other = $runs[$channel] ?? null;
            if ($other === null || !(str_starts_with($run, $other) || str_contains($other, $run))) {
                continue;
            }
            $state = $this->cache->get($this->stateKey((string) $signature));
            if ($state === self::BEGUN) {
                return null;
            }
            if ($state === self::HANDLED) {
                $handled = max($handled, min(substr_count($run, ','), substr_count($other, ',')));
            } else {
                unset($requests[$signature][$channel]);
            }
        }

        return $handled;
    }

    /**
     * The events of each channel, in order: their digests, each with a comma after it, and their positions.
     *
     * @param  list<array{channel: string}>  $events
     * @return array{array<array-key, string>, array<array-key, non-empty-list<int>>}
     */
    private static function runs(array $events): array
    {
        [$runs, $positions] = [[], []];
        foreach ($events as $position => $event) {
            $channel = substr(hash('sha256', $event['channel']), 0, 32);
            $runs[$channel] = ($runs[$channel] ?? '') . substr(hash('sha256', serialize($event)), 0, 32) . ',';
            $positions[$channel][] = $position;
        }

        return [$runs, $positions];
    }

    /** Twice the window: a clock that is behind makes a request valid for that long. */
    private function seconds(): int
    {
        return 2 * $this->windowSeconds;
    }

    private function stateKey(string $signature): string
    {
        return 'ringverb:webhook:' . $signature;
    }
}
