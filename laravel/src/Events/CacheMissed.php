<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Events;

/** A client subscribed to a cache channel without a remembered event: broadcast one. */
final class CacheMissed extends WebhookEvent {}
