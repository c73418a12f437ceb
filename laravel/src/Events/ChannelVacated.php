<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Events;

/** The last subscriber of a channel is gone, and none came back within the debounce time. */
final class ChannelVacated extends WebhookEvent {}
