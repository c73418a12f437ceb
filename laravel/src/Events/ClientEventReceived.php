<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Events;

/** A client sent an event (whisper) to a channel. */
final class ClientEventReceived extends WebhookEvent
{
    public string $event;

    /** As the client sent it; usually JSON. */
    public string $data;

    public string $socketId;

    /** In a presence channel. */
    public ?string $userId;

    /** @return mixed the data, decoded if it is JSON */
    public function decoded(): mixed
    {
        return json_decode($this->data, true) ?? $this->data;
    }

    protected function fill(array $event): void
    {
        $this->event = self::text($event, 'event');
        $this->data = self::text($event, 'data');
        $this->socketId = self::text($event, 'socket_id');
        $this->userId = self::optionalText($event, 'user_id');
    }
}
