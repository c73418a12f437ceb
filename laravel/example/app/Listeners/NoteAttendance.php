<?php

declare(strict_types=1);

namespace App\Listeners;

use Illuminate\Support\Facades\Log;
use Ringverb\Laravel\Events\MemberAdded;
use Ringverb\Laravel\Events\MemberRemoved;

/** Laravel finds the listener by the type of its argument. RINGVERB_WEBHOOK_URL makes the server send these. */
final class NoteAttendance
{
    public function handle(MemberAdded|MemberRemoved $event): void
    {
        Log::info(class_basename($event), ['channel' => $event->channel, 'user' => $event->userId]);
    }
}
