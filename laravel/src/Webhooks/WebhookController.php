<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Webhooks;

use Illuminate\Contracts\Events\Dispatcher;
use Illuminate\Http\Request;
use Illuminate\Http\Response;
use Ringverb\Laravel\Exceptions\WebhookException;
use Throwable;

/**
 * Receives the webhooks of the server, and dispatches an event of Laravel for each of theirs. The server sends an event
 * again after 5xx and no answer, and discards it after 4xx. So an exception of a listener is a 500, and the events of
 * that request arrive once more.
 */
final class WebhookController
{
    public function __invoke(Request $request, WebhookVerifier $verifier, Dispatcher $events): Response
    {
        try {
            $webhook = $verifier->verify(
                (string) $request->header('X-Pusher-Key', ''),
                (string) $request->header('X-Pusher-Signature', ''),
                (string) $request->getContent(),
            );
        } catch (WebhookException $exception) {
            return new Response($exception->getMessage() . "\n", $exception->status, ['Content-Type' => 'text/plain']);
        }
        try {
            foreach ($webhook->events as $event) {
                $events->dispatch($event);
            }
        } catch (Throwable $exception) {
            $verifier->forget($webhook);

            throw $exception;
        }
        $verifier->complete($webhook);

        return new Response('', 204);
    }
}
