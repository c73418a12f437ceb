<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Webhooks;

use Closure;
use DateTimeImmutable;
use Illuminate\Contracts\Cache\Repository;
use InvalidArgumentException;
use Ringverb\Laravel\Configuration;
use Ringverb\Laravel\Events\WebhookEvent;
use Ringverb\Laravel\Exceptions\ConfigurationException;
use Ringverb\Laravel\Exceptions\WebhookException;

/**
 * Checks a webhook: the key names an app, the signature covers the bytes of the body, the time is within the window,
 * and the same request was not handled within it. The cache remembers what was handled.
 */
final class WebhookVerifier
{
    /** Bytes of a request. The server sends far less. */
    private const BODY_MAX = 16 * 1024 * 1024;

    /** @param Closure(): float $now seconds since 1970 */
    public function __construct(
        private readonly Configuration $configuration,
        private readonly Repository $cache,
        private readonly int $windowSeconds,
        private readonly Closure $now,
    ) {}

    /** @throws WebhookException */
    public function verify(string $key, string $signature, string $body): Webhook
    {
        if (strlen($body) > self::BODY_MAX) {
            throw new WebhookException(413, 'The body is larger than ' . self::BODY_MAX . ' bytes.');
        }
        $app = $this->app($key);
        $expected = hash_hmac('sha256', $body, (string) ($app['secret'] ?? ''));
        // The comparison is made for an unknown key, too, so that its time does not tell which keys exist.
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
        $events = [];
        try {
            foreach ($decoded['events'] as $event) {
                $events[] = WebhookEvent::parse((array) $event, (string) $app['app_id'], $createdAt);
            }
        } catch (InvalidArgumentException $exception) {
            throw new WebhookException(400, "The body is no webhook: {$exception->getMessage()}.");
        }
        // Twice the window: a clock that is behind makes a request valid for that long.
        $isFirst = $this->cache->add($this->cacheKey($signature), true, 2 * $this->windowSeconds);

        return new Webhook($events, $signature, $isFirst);
    }

    /** Lets the server send the same request again. */
    public function forget(Webhook $webhook): void
    {
        $this->cache->forget($this->cacheKey($webhook->signature));
    }

    /** @return array<string, mixed>|null */
    private function app(string $key): ?array
    {
        try {
            $apps = $this->configuration->apps();
        } catch (ConfigurationException) {
            return null;
        }
        foreach ($apps as $app) {
            if ($key !== '' && hash_equals((string) ($app['key'] ?? ''), $key)) {
                return $app;
            }
        }

        return null;
    }

    private function cacheKey(string $signature): string
    {
        return 'ringverb:webhook:' . $signature;
    }
}
