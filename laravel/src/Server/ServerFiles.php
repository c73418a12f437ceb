<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Server;

use RuntimeException;

/**
 * The folder with one pair of files for each server of the application: its configuration, which has secrets and which
 * the server reads again for each new program, and the process that reads it. Only the owner can read them.
 */
final class ServerFiles
{
    public function __construct(private readonly string $state) {}

    /** The configuration of the server at this address. A symbolic link of a release folder is resolved. */
    public function configuration(string $host, int $port): string
    {
        return $this->folder() . '/' . $this->name($host, $port) . '.json';
    }

    /** Writes by rename, so that a server never reads half a file. */
    public function write(string $path, string $text): void
    {
        $temporary = $path . '.' . bin2hex(random_bytes(4));
        $mask = umask(0077);
        try {
            $written = @file_put_contents($temporary, $text);
        } finally {
            umask($mask);
        }
        if ($written !== strlen($text) || !@rename($temporary, $path)) {
            @unlink($temporary);
            throw new RuntimeException(
                "Cannot write {$path}: its folder must belong to the user of this command (RINGVERB_STATE).",
            );
        }
    }

    /**
     * Waits until no other command starts or restarts this server.
     *
     * @throws RuntimeException
     */
    public function lock(string $configuration): RestartLock
    {
        $path = preg_replace('/\.json$/', '', $configuration) . '.lock';
        // A FIFO would wait for a writer.
        $isOther = file_exists($path) && !is_file($path);
        // A command of another user may have left the file; who can read it can lock it.
        $file = $isOther ? false : (@fopen($path, 'c+') ?: @fopen($path, 'r'));
        if ($file === false || !flock($file, LOCK_EX)) {
            throw new RuntimeException(
                "Cannot lock {$path}: run this command as the user of the server, or delete the file if another user " .
                    'has left it.',
            );
        }

        return new RestartLock($file);
    }

    /**
     * Notes the process that is about to run the server.
     *
     * @param  string|null  $processIdsOf  the host or container in which the process id counts
     */
    public function claim(string $configuration, RunningServer $server, ?string $processIdsOf): void
    {
        $this->write(
            $this->claimOf($configuration),
            json_encode(
                [
                    'pid' => $server->pid,
                    'identity' => $server->identity,
                    'configuration' => $configuration,
                    'environment_file' => $server->environmentFile,
                    'process_ids_of' => $processIdsOf,
                ],
                JSON_THROW_ON_ERROR | JSON_UNESCAPED_SLASHES,
            ) . "\n",
        );
    }

    public function release(string $configuration): void
    {
        @unlink($this->claimOf($configuration));
    }

    /**
     * The servers that are alive. The claim of an ended process is removed, unless another host or container that
     * shares the folder wrote it: its process ids mean nothing here.
     *
     * @return list<RunningServer>
     *
     * @throws RuntimeException if another user has the folder
     */
    public function running(ProcessTable $processes): array
    {
        $servers = [];
        foreach ($this->claims() as $file => $claim) {
            if (self::isElsewhere($claim, $processes)) {
                continue;
            }
            if ($processes->identity($claim['pid']) !== $claim['identity']) {
                $this->removeEnded($file, $claim);

                continue;
            }
            $environmentFile = $claim['environment_file'] ?? null;
            $servers[] = new RunningServer(
                $claim['pid'],
                $claim['identity'],
                $claim['configuration'],
                is_string($environmentFile) ? $environmentFile : null,
            );
        }

        return $servers;
    }

    /**
     * A start may replace the claim of an ended process at this moment. It has the lock, and then its claim stays.
     *
     * @param array<string, mixed> $ended
     */
    private function removeEnded(string $file, array $ended): void
    {
        $path = preg_replace('/\.pid$/', '', $file) . '.lock';
        $lock = file_exists($path) && !is_file($path) ? false : @fopen($path, 'c+');
        if ($lock !== false && flock($lock, LOCK_EX | LOCK_NB) && self::readClaim($file) === $ended) {
            @unlink($file);
        }
    }

    /** The servers that other hosts or containers with this folder have claimed. @return list<string> addresses */
    public function elsewhere(ProcessTable $processes): array
    {
        $addresses = [];
        foreach ($this->claims() as $file => $claim) {
            if (self::isElsewhere($claim, $processes)) {
                $addresses[] = basename($file, '.pid');
            }
        }

        return $addresses;
    }

    /** The request of `reverb:restart` that this host has followed last; null if it has not looked yet. */
    public function lastRequest(): ?string
    {
        return self::read($this->state . '/servers/restart-request');
    }

    public function rememberRequest(string $request): void
    {
        $this->write($this->folder() . '/restart-request', $request);
    }

    /** @return array<string, array<string, mixed>> by file */
    private function claims(): array
    {
        $claims = [];
        $folder = $this->state . '/servers';
        if (!is_dir($folder)) {
            return [];
        }
        // glob() would take [ and ? in the path for a pattern, and an unreadable folder for an empty one.
        $names = @scandir($folder);
        if ($names === false) {
            throw new RuntimeException("Cannot read {$folder}: run this command as the user of the server.");
        }
        foreach ($names as $name) {
            if (!str_ends_with($name, '.pid')) {
                continue;
            }
            $claim = self::readClaim("{$folder}/{$name}");
            if ($claim !== null) {
                $claims["{$folder}/{$name}"] = $claim;
            }
        }

        return $claims;
    }

    /** @return array<string, mixed>|null */
    private static function readClaim(string $file): ?array
    {
        $claim = json_decode((string) self::read($file), true);
        $isClaim =
            is_array($claim) &&
            is_int($claim['pid'] ?? null) &&
            is_string($claim['identity'] ?? null) &&
            is_string($claim['configuration'] ?? null);

        return $isClaim ? $claim : null;
    }

    /** A FIFO would wait for a writer. */
    private static function read(string $file): ?string
    {
        $text = is_file($file) ? @file_get_contents($file) : false;

        return $text === false ? null : $text;
    }

    /** @param array<string, mixed> $claim */
    private static function isElsewhere(array $claim, ProcessTable $processes): bool
    {
        $other = $claim['process_ids_of'] ?? null;

        return is_string($other) && $other !== $processes->processIdsOf();
    }

    private function folder(): string
    {
        $folder = $this->state . '/servers';
        if (!is_dir($folder) && !@mkdir($folder, 0700, true) && !is_dir($folder)) {
            throw new RuntimeException(
                "Cannot make the folder {$folder}: set RINGVERB_STATE to a folder of this user.",
            );
        }

        self::ignoreInGit($this->state);

        return realpath($folder) ?: $folder;
    }

    /** The folder has secrets and a program, and is of this host alone. */
    public static function ignoreInGit(string $state): void
    {
        if (!is_file($state . '/.gitignore')) {
            @file_put_contents($state . '/.gitignore', "*\n");
        }
    }

    private function name(string $host, int $port): string
    {
        return preg_replace('/[^0-9A-Za-z.]+/', '_', $host) . '-' . $port;
    }

    private function claimOf(string $configuration): string
    {
        return preg_replace('/\.json$/', '', $configuration) . '.pid';
    }
}
