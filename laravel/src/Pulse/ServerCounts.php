<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Pulse;

use Illuminate\Contracts\Broadcasting\Factory as BroadcastFactory;
use Illuminate\Contracts\Cache\Factory as CacheFactory;
use Illuminate\Contracts\Cache\Repository as Cache;
use Illuminate\Contracts\Config\Repository;
use Ringverb\Laravel\Configuration;
use Throwable;

/**
 * What the servers have counted for each app, asked with `GET /connections`: one request for each app. The answer is
 * the sum over the nodes of a cluster. Counters of messages begin at 0 with each server process, so this class
 * remembers the last answer in Pulse's cache store.
 */
class ServerCounts
{
    /** Seconds. After a longer pause there is no difference, because it would look like a peak of this moment. */
    private const REMEMBERED = 300;

    /** Seconds. `pulse:check` waits for the answer. */
    private const TIMEOUT = 5;

    private ?Throwable $problem = null;

    public function __construct(
        private readonly Configuration $configuration,
        private readonly BroadcastFactory $broadcast,
        private readonly CacheFactory $cache,
        private readonly Repository $config,
    ) {}

    /** Whether it is time to ask again. Each recorder has its own name. */
    public function isDue(string $recorder, int $now): bool
    {
        $interval = max(1, (int) $this->config->get('reverb.servers.reverb.pulse_ingest_interval', 15));
        $key = "ringverb:pulse:{$recorder}";
        if ((int) $this->store()->get($key, 0) > $now - $interval) {
            return false;
        }
        $this->store()->put($key, $now, self::REMEMBERED);

        return true;
    }

    /** @return array<string, int> open connections by app id */
    public function connections(): array
    {
        return array_map(static fn(object $answer): int => (int) $answer->connections, $this->answers());
    }

    /** @return array<string, array{sent: int, received: int}> messages since the last call, by app id */
    public function messages(): array
    {
        $differences = [];
        foreach ($this->answers() as $id => $answer) {
            // A server does not count the messages of each app if it has more than 1,000.
            if (!isset($answer->messages_sent, $answer->messages_received)) {
                continue;
            }
            $now = ['sent' => (int) $answer->messages_sent, 'received' => (int) $answer->messages_received];
            $key = "ringverb:pulse:messages:{$id}";
            $last = $this->store()->get($key);
            $this->store()->put($key, $now, self::REMEMBERED);
            // A smaller number: a node has started again. What it has counted since is not known for a sum of nodes.
            if (is_array($last) && $now['sent'] >= $last['sent'] && $now['received'] >= $last['received']) {
                $differences[(string) $id] = [
                    'sent' => $now['sent'] - $last['sent'],
                    'received' => $now['received'] - $last['received'],
                ];
            }
        }

        return $differences;
    }

    /** Throws what the last question failed with, after the answers of the other apps were used. */
    public function throwProblem(): void
    {
        $problem = $this->problem;
        $this->problem = null;
        if ($problem !== null) {
            throw $problem;
        }
    }

    /** @return array<string, object> the answers by app id, without apps whose server did not answer */
    protected function answers(): array
    {
        $answers = [];
        foreach ($this->configuration->clients() as $client) {
            $client['client_options'] = ['timeout' => self::TIMEOUT, 'connect_timeout' => self::TIMEOUT];
            try {
                $answers[$client['app_id']] = $this->ask($client);
            } catch (Throwable $problem) {
                $this->problem ??= $problem;
            }
        }

        return $answers;
    }

    /** @param array<string, mixed> $client */
    protected function ask(array $client): object
    {
        return $this->broadcast->pusher($client)->get('/connections');
    }

    private function store(): Cache
    {
        return $this->cache->store($this->config->get('pulse.cache'));
    }
}
