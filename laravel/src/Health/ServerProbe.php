<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Health;

use Illuminate\Contracts\Broadcasting\Factory as BroadcastFactory;
use RuntimeException;
use Throwable;

/** Asks the server by the connection with which the application publishes: host, port, path, key and secret count. */
final class ServerProbe
{
    public function __construct(private readonly BroadcastFactory $broadcast) {}

    /** @return int|null the number of open connections; null if the server does not answer */
    public function connections(): ?int
    {
        try {
            return $this->ask();
        } catch (Throwable) {
            return null;
        }
    }

    /** @return string|null what is wrong, and what to change */
    public function problem(): ?string
    {
        try {
            $this->ask();

            return null;
        } catch (Throwable $exception) {
            // pusher-php-server gives the status as the code. The text of cURL ends with a signed URL.
            $text = (string) preg_replace('/ (\(see|for) https?:.*/s', '', $exception->getMessage());

            return match ($exception->getCode()) {
                401 => "the server refuses the signature ({$text}): key or secret of config/broadcasting.php differ " .
                    'from its own',
                404 => "the server does not know the app, or has another path ({$text}): compare REVERB_APP_ID and " .
                    'REVERB_SERVER_PATH',
                default
                    => "no answer ({$text}): does the server run, and are REVERB_HOST, REVERB_PORT and REVERB_SCHEME " .
                        'those that PHP can reach?',
            };
        }
    }

    private function ask(): int
    {
        $broadcaster = $this->broadcast->connection();
        if (!method_exists($broadcaster, 'getPusher')) {
            throw new RuntimeException('the default broadcasting connection is not reverb');
        }

        return (int) $broadcaster->getPusher()->get('/connections')->connections;
    }
}
