<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Server;

/** A process that runs the server of this application, and the files that it reads. */
final class RunningServer
{
    public function __construct(
        public readonly int $pid,
        public readonly string $identity,
        public readonly string $configuration,
        public readonly ?string $environmentFile,
    ) {}
}
