<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Testing;

use Closure;
use Illuminate\Broadcasting\Broadcasters\Broadcaster;
use Illuminate\Broadcasting\Broadcasters\UsePusherChannelConventions;
use Symfony\Component\HttpKernel\Exception\AccessDeniedHttpException;

/**
 * Keeps what is broadcast instead of sending it. Authorization works as with the real server, so a test of
 * routes/channels.php sees the same answers and signatures.
 */
final class RecordingBroadcaster extends Broadcaster
{
    use UsePusherChannelConventions;

    /** @var list<RecordedBroadcast> */
    private array $broadcasts = [];

    public function __construct(private readonly string $key, private readonly string $secret) {}

    /** The callbacks of routes/channels.php were registered with the broadcaster of another connection. */
    public static function copyCallbacks(object $from, object $to): void
    {
        if (!($from instanceof Broadcaster) || !($to instanceof Broadcaster) || $from === $to) {
            return;
        }
        Closure::bind(
            static function () use ($from, $to): void {
                foreach (['channels', 'channelOptions', 'authenticatedUserCallback'] as $name) {
                    if (isset($from->{$name})) {
                        $to->{$name} = $from->{$name};
                    }
                }
            },
            null,
            Broadcaster::class,
        )();
    }

    /** @return list<RecordedBroadcast> */
    public function broadcasts(): array
    {
        return $this->broadcasts;
    }

    public function auth($request)
    {
        $wire = (string) $request->input('channel_name');
        $name = $this->normalizeChannelName($wire);
        if ($wire === '' || ($this->isGuardedChannel($wire) && !$this->retrieveUser($request, $name))) {
            throw new AccessDeniedHttpException();
        }

        return $this->verifyUserCanAccessChannel($request, $name);
    }

    public function validAuthenticationResponse($request, $result)
    {
        $channel = (string) $request->input('channel_name');
        $parts = [(string) $request->input('socket_id'), $channel];
        if (!str_starts_with($channel, 'presence-')) {
            return ['auth' => $this->signature($parts)];
        }
        $user = $this->retrieveUser($request, $this->normalizeChannelName($channel));
        $identifier = method_exists($user, 'getAuthIdentifierForBroadcasting')
            ? $user->getAuthIdentifierForBroadcasting()
            : $user->getAuthIdentifier();
        $data = (string) json_encode(['user_id' => (string) $identifier, 'user_info' => $result]);

        return ['auth' => $this->signature([...$parts, $data]), 'channel_data' => $data];
    }

    public function resolveAuthenticatedUser($request)
    {
        $user = parent::resolveAuthenticatedUser($request);
        if (!$user) {
            return null;
        }
        $data = (string) json_encode($user);

        return [
            'auth' => $this->signature([(string) $request->input('socket_id'), 'user', $data], '::'),
            'user_data' => $data,
        ];
    }

    public function broadcast(array $channels, $event, array $payload = [])
    {
        $socket = $payload['socket'] ?? null;
        unset($payload['socket']);
        $this->broadcasts[] = new RecordedBroadcast(
            (string) $event,
            array_values(array_map('strval', $this->formatChannels($channels))),
            $payload,
            $socket === null ? null : (string) $socket,
        );
    }

    /** @param list<string> $parts */
    private function signature(array $parts, string $separator = ':'): string
    {
        return $this->key . ':' . hash_hmac('sha256', implode($separator, $parts), $this->secret);
    }
}
