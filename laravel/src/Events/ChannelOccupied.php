<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Events;

/** A channel has its first subscriber. */
final class ChannelOccupied extends WebhookEvent {}
