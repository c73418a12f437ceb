<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Server;

/**
 * Has a running server replace its program by SIGUSR2, which keeps the process id and the connections, and waits for
 * the outcome. The new program starts as a child, serves, and is executed in the process again; the process then takes
 * back from the child, which its arguments show (docs/OPERATIONS.md, "A new version").
 */
class Replacement
{
    private const SIGUSR2 = 12;

    private const STEP_MICROSECONDS = 25_000;

    public function __construct(private readonly ProcessTable $processes, private readonly float $secondsMax = 45.0) {}

    /** @return string|null why it failed; null if the new program serves */
    public function run(RunningServer $server): ?string
    {
        if (!function_exists('posix_kill')) {
            return 'this PHP has no posix_kill: install the extension posix, or send SIGUSR2 to process ' .
                $server->pid;
        }
        // A process that starts has no handler yet, and the signal would end it.
        $isReady = $this->wait(fn(): ?bool => match (true) {
            // The lock of this command would delay the supervisor's start of the next one.
            $this->processes->identity($server->pid) !== $server->identity => false,
            default => $this->processes->catches($server->pid, self::SIGUSR2) ?: null,
        });
        if ($isReady === false) {
            return "process {$server->pid} has ended: see its log";
        }
        if ($isReady === null) {
            return "process {$server->pid} does not handle SIGUSR2: is it still starting?";
        }
        $before = $this->stage($server->pid);
        if (!posix_kill($server->pid, self::SIGUSR2)) {
            return "process {$server->pid} cannot be signaled: run this command as the user of the server";
        }
        $standIn = null;
        $outcome = $this->wait(function () use ($server, $before, &$standIn): ?string {
            if ($this->processes->identity($server->pid) !== $server->identity) {
                return "process {$server->pid} has ended: see its log";
            }
            $standIn ??= $this->standInOf($server->pid, $before);
            // The order matters: the process executes the new program before its stand-in ends.
            $hasEnded = $standIn !== null && !$this->processes->exists($standIn);
            $stage = $this->stage($server->pid);
            if ($stage !== null && $stage !== $before && !$this->processes->exists($stage)) {
                return '';
            }

            return $hasEnded && $stage === $before
                ? 'the new program did not start, and the old one serves on: see the log of the server'
                : null;
        });

        return match ($outcome) {
            null => "no outcome after {$this->secondsMax} s: see the log of the server",
            '' => null,
            default => $outcome,
        };
    }

    /** The child from which the process has taken back, by its arguments. */
    private function stage(int $pid): ?int
    {
        foreach ($this->processes->arguments($pid) as $argument) {
            if (str_starts_with($argument, '--takes-back-from=')) {
                return (int) substr($argument, strlen('--takes-back-from='));
            }
        }

        return null;
    }

    /** @param int|null $before that of the last replacement, which can still be ending */
    private function standInOf(int $pid, ?int $before): ?int
    {
        foreach ($this->processes->all() as $candidate) {
            $arguments = $candidate !== $before ? $this->processes->arguments($candidate) : [];
            if (in_array("--stand-in-for={$pid}", $arguments, true)) {
                return $candidate;
            }
        }

        return null;
    }

    /**
     * @template T
     *
     * @param  callable(): ?T  $ask
     * @return T|null
     */
    private function wait(callable $ask): mixed
    {
        $deadline = microtime(true) + $this->secondsMax;
        while (true) {
            $answer = $ask();
            if ($answer !== null || microtime(true) > $deadline) {
                return $answer;
            }
            usleep(self::STEP_MICROSECONDS);
        }
    }
}
