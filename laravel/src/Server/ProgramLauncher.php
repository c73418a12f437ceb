<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Server;

use Ringverb\Laravel\Exceptions\BinaryException;

/** Replaces this PHP process by a program: the process id, the parent, and so the supervisor's view stay. */
class ProgramLauncher
{
    /**
     * @param  list<string>  $arguments
     * @param  array<string, string>  $environment
     *
     * @throws BinaryException if the process is still PHP afterwards
     */
    public function replaceProcess(string $program, array $arguments, array $environment): never
    {
        if (!function_exists('pcntl_exec')) {
            throw new BinaryException(
                'This PHP has no pcntl_exec, which reverb:start needs: install the extension pcntl ' .
                    '(Debian: part of php-cli), and remove pcntl_exec from disable_functions.',
            );
        }
        @pcntl_exec($program, $arguments, $environment);
        $reason = pcntl_strerror(pcntl_get_last_error());

        throw new BinaryException(
            "Cannot run {$program}: {$reason}. Is it made for this machine, on a disk without noexec?",
        );
    }
}
