<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Server;

/** What /proc shows of processes. The folder is a parameter for tests. */
final class ProcessTable
{
    public function __construct(private readonly string $proc = '/proc') {}

    /**
     * Names a process for as long as it lives, over any program that it executes: boot and start time. A process id
     * alone can belong to another process later.
     */
    public function identity(int $pid): ?string
    {
        $stat = $this->read("{$pid}/stat");
        // The name of the program is in parentheses, and may have blanks and parentheses.
        $end = $stat === null ? false : strrpos($stat, ')');
        if ($end === false) {
            return null;
        }
        $fields = explode(' ', trim(substr((string) $stat, $end + 1)));
        $state = $fields[0];
        $started = $fields[19] ?? '';
        if ($started === '' || $state === 'Z' || $state === 'X') {
            return null;
        }

        return trim((string) $this->read('sys/kernel/random/boot_id')) . ':' . $started;
    }

    /** In which boot of which host, and in which container of it, process ids count. */
    public function processIdsOf(): ?string
    {
        $namespace = @readlink("{$this->proc}/self/ns/pid");
        $boot = $this->read('sys/kernel/random/boot_id');

        return $namespace === false || $boot === null ? null : trim($boot) . ':' . $namespace;
    }

    /** The effective user of a process; that of this one without an id. */
    public function user(?int $pid = null): ?int
    {
        $status = $this->read(($pid ?? 'self') . '/status') ?? '';

        return preg_match('/^Uid:\s*\d+\s+(\d+)/m', $status, $match) === 1 ? (int) $match[1] : null;
    }

    /** Whether the process has a handler for this signal. Without one, most signals end a process. */
    public function catches(int $pid, int $signal): bool
    {
        $status = $this->read("{$pid}/status") ?? '';
        if (preg_match('/^SigCgt:\s*([0-9a-f]+)$/m', $status, $match) !== 1) {
            return false;
        }
        // 16 hexadecimal digits are more than an integer of PHP.
        $digit = strrev($match[1])[intdiv($signal - 1, 4)] ?? '0';

        return ((hexdec($digit) >> ($signal - 1) % 4) & 1) === 1;
    }

    /** @return list<string> */
    public function arguments(int $pid): array
    {
        return explode("\0", rtrim($this->read("{$pid}/cmdline") ?? '', "\0"));
    }

    /** @return list<int> */
    public function all(): array
    {
        return array_map(static fn(string $path): int => (int) basename($path), glob($this->proc . '/[0-9]*') ?: []);
    }

    /** The file of the program that a process runs, also if it was replaced since. */
    public function program(int $pid): ?string
    {
        $target = @readlink("{$this->proc}/{$pid}/exe");

        return $target === false ? null : preg_replace('/ \(deleted\)$/', '', $target);
    }

    public function exists(int $pid): bool
    {
        return $this->identity($pid) !== null;
    }

    /**
     * The environment with which this process was started. Laravel adds .env to that of PHP, and a server that
     * inherited it would not see later changes of .env.
     *
     * @return array<string, string>|null
     */
    public function ownEnvironment(): ?array
    {
        $text = $this->read('self/environ');
        if ($text === null) {
            return null;
        }
        $environment = [];
        foreach (explode("\0", $text) as $entry) {
            $parts = explode('=', $entry, 2);
            if (count($parts) === 2 && $parts[0] !== '') {
                $environment[$parts[0]] = $parts[1];
            }
        }

        return $environment;
    }

    private function read(string $name): ?string
    {
        $text = @file_get_contents("{$this->proc}/{$name}");

        return $text === false ? null : $text;
    }
}
