<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Webhooks;

use Closure;
use DateTimeImmutable;
use Illuminate\Contracts\Cache\Repository;
use InvalidArgumentException;
use Ringverb\Laravel\Configuration;
use Ringverb\Laravel\Events\WebhookEvent;
use Ringverb\Laravel\Exceptions\WebhookException;

/**
 * Checks a webhook: the key names an app, the signature covers the bytes of the body, the time is within the window,
 * and which of its events were not handled within it.
 */
final class WebhookVerifier
{
    /** Bytes of a request. The server sends far less. */
    private const BODY_MAX = 16 * 1024 * 1024;

    private readonly HandledEvents $handled;

    /** @param Closure(): float $now seconds since 1970 */
    public function __construct(
        private readonly Configuration $configuration,
        Repository $cache,
        private readonly int $windowSeconds,
        private readonly Closure $now,
    ) {
        $this->handled = new HandledEvents($cache, $windowSeconds);
    }

    /** @throws WebhookException */
    public function verify(string $key, string $signature, string $body): Webhook
    {
        if (strlen($body) > self::BODY_MAX) {
            throw new WebhookException(413, 'The body is larger than ' . self::BODY_MAX . ' bytes.');
        }
        $app = $this->app($key);
        $expected = hash_hmac('sha256', $body, $app['secret'] ?? '');
        // The comparison is made for an unknown key, too, so that its time does not show which keys exist.
        $isRight = hash_equals($expected, $signature);
        if ($app === null || ($app['secret'] ?? '') === '' || !$isRight) {
            throw new WebhookException(
                401,
                'The signature is wrong: this application must have the same REVERB_APP_KEY and REVERB_APP_SECRET as ' .
                    'the server (php artisan config:clear after a change).',
            );
        }
        $decoded = json_decode($body, true, 512, JSON_BIGINT_AS_STRING);
        if (!is_array($decoded) || !is_int($decoded['time_ms'] ?? null) || !is_array($decoded['events'] ?? null)) {
            throw new WebhookException(400, 'The body is no webhook: it needs time_ms and events.');
        }
        $age = ($this->now)() - $decoded['time_ms'] / 1000;
        if (abs($age) > $this->windowSeconds) {
            throw new WebhookException(
                403,
                sprintf(
                    'The request is %.0f s old, and %d s are the limit (ringverb.webhooks.window): do the clocks of ' .
                        'both hosts agree?',
                    $age,
                    $this->windowSeconds,
                ),
            );
        }
        $createdAt = DateTimeImmutable::createFromFormat(
            'U.v',
            sprintf('%d.%03d', intdiv($decoded['time_ms'], 1000), $decoded['time_ms'] % 1000),
        );
        $sent = array_map(static fn(mixed $event): array => (array) $event, array_values($decoded['events']));
        $events = [];
        try {
            foreach ($sent as $event) {
                $events[] = WebhookEvent::parse($event, $app['app_id'], $createdAt);
            }
        } catch (InvalidArgumentException $exception) {
            throw new WebhookException(400, "The body is no webhook: {$exception->getMessage()}.");
        }
        $positions = $this->handled->begin($signature, $app['app_id'], $decoded['time_ms'], $sent);
        if ($positions === null) {
            throw new WebhookException(
                503,
                'Events of this request are being handled: their outcome is not known yet.',
            );
        }
        $toHandle = array_map(static fn(int $position): WebhookEvent => $events[$position], $positions);

        return new Webhook($toHandle, $signature);
    }

    /** The listeners have run. A repetition of the events is answered without them. */
    public function complete(Webhook $webhook): void
    {
        $this->handled->complete($webhook->signature);
    }

    /** Lets the server send the same events again. */
    public function forget(Webhook $webhook): void
    {
        $this->handled->forget($webhook->signature);
    }

    /** @return array{app_id: string, key: string, secret: string, options: array<string, mixed>}|null */
    private function app(string $key): ?array
    {
        // An ApplicationProvider that fails is a 500, after which the server sends the request again.
        foreach ($this->configuration->clients() as $app) {
            if ($key !== '' && hash_equals($app['key'], $key)) {
                return $app;
            }
        }

        return null;
    }
}
