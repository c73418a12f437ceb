<?php

declare(strict_types=1);

namespace App\Events;

use Illuminate\Broadcasting\InteractsWithSockets;
use Illuminate\Broadcasting\PresenceChannel;
use Illuminate\Contracts\Broadcasting\ShouldBroadcastNow;
use Illuminate\Foundation\Events\Dispatchable;

/** Sent without a queue. Its public properties are the payload, and Echo listens to 'MessagePosted'. */
final class MessagePosted implements ShouldBroadcastNow
{
    use Dispatchable;
    use InteractsWithSockets;

    public function __construct(public readonly string $room, public readonly string $text)
    {
    }

    public function broadcastOn(): PresenceChannel
    {
        return new PresenceChannel("room.{$this->room}");
    }
}
