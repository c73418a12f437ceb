<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Server;

/**
 * One command at a time starts or restarts a server. The file keeps when the restart began whose configuration the
 * server has: a command reads its configuration at its start, so after a wait it may have an older one.
 */
final class RestartLock
{
    /** @param  resource  $file  locked; the lock ends with this object */
    public function __construct(private $file) {}

    /** PHP lets programs that it starts inherit the file. Closing it here would leave the lock to them. */
    public function __destruct()
    {
        flock($this->file, LOCK_UN);
    }

    /** Whether the server has the configuration of a command that began after this time. */
    public function hasNewerThan(float $began): bool
    {
        rewind($this->file);
        $last = (float) stream_get_contents($this->file);

        // A clock that was set back leaves a time of the future, which would stop all restarts until then.
        return $last > $began && $last <= microtime(true);
    }

    /** Called when the configuration of the command that began at this time is in place. */
    public function note(float $began): void
    {
        rewind($this->file);
        if (@ftruncate($this->file, 0)) {
            @fwrite($this->file, sprintf('%.6F', $began));
            fflush($this->file);
        }
    }
}
