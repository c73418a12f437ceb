<?php

declare(strict_types=1);

use Illuminate\Support\Facades\Broadcast;

Broadcast::channel('App.Models.User.{id}', fn ($user, int $id) => $user->id === $id);

// Names here have no `private-` and no `presence-`.
Broadcast::channel('orders.{order}', fn ($user, int $order) => $order === 7);

// The array is what the other members see.
Broadcast::channel('room.{room}', fn ($user, string $room) => ['id' => $user->id, 'name' => $user->name]);
