<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Console;

use Illuminate\Console\Command;
use Illuminate\Contracts\Cache\Factory as CacheFactory;
use Ringverb\Laravel\Configuration;
use Ringverb\Laravel\Exceptions\BinaryException;
use Ringverb\Laravel\Exceptions\ConfigurationException;
use Ringverb\Laravel\Server\Binary;
use Ringverb\Laravel\Server\ProcessTable;
use Ringverb\Laravel\Server\Replacement;
use Ringverb\Laravel\Server\RunningServer;
use Ringverb\Laravel\Server\ServerFiles;
use RuntimeException;
use Throwable;

/**
 * Takes the place of Reverb's command. Each server of this application on this host reads its configuration again and
 * replaces its program; process ids and connections stay. A configuration that the program refuses changes nothing.
 */
final class RestartCommand extends Command
{
    /** What Reverb's own servers look at. They end, and a supervisor starts ringverb in their place. */
    private const SIGNAL_OF_REVERB = 'laravel:reverb:restart';

    protected $signature = 'reverb:restart
        {--requested : Only if this command was called on another host since (for the scheduler of each host)}';

    protected $description = 'Replace the program and the configuration of the WebSocket server, with its connections';

    public function handle(
        Configuration $configuration,
        Binary $binary,
        ServerFiles $files,
        ProcessTable $processes,
        Replacement $replacement,
    ): int {
        try {
            $servers = $files->running($processes);
            $elsewhere = $files->elsewhere($processes);
            $this->refuseAnotherUser($servers, $processes);
            $isRequested = false;
            if (!$this->option('requested')) {
                $isRequested = $this->request($files);
            } elseif (!$this->isRequested($files)) {
                return self::SUCCESS;
            }
        } catch (RuntimeException $exception) {
            $this->error($exception->getMessage());

            return self::FAILURE;
        }
        if ($servers === []) {
            $this->info('No server of this application runs on this host.');
            if ($isRequested && class_exists('Laravel\Reverb\Servers\Reverb\Factory')) {
                $this->line('If a server of Reverb itself runs, it ends now, and its supervisor starts this one.');
            }
            if ($elsewhere !== []) {
                $this->warn(
                    'The state folder names a server of another host, container or boot (' .
                        implode(', ', $elsewhere) .
                        '): run this command there.',
                );
            }

            return self::SUCCESS;
        }
        try {
            $text = $configuration->json();
        } catch (ConfigurationException $exception) {
            $this->error(rtrim($exception->getMessage(), '.') . '. Nothing was restarted.');

            return self::FAILURE;
        }
        $failed = 0;
        foreach ($servers as $server) {
            $failed += $this->restart($server, $text, $binary, $files, $processes, $replacement) ? 0 : 1;
        }

        return $failed === 0 ? self::SUCCESS : self::FAILURE;
    }

    private function restart(
        RunningServer $server,
        string $text,
        Binary $binary,
        ServerFiles $files,
        ProcessTable $processes,
        Replacement $replacement,
    ): bool {
        $next = $server->configuration . '.next';
        // This process has read its configuration at its start.
        $began = (float) ($_SERVER['REQUEST_TIME_FLOAT'] ?? microtime(true));
        try {
            // Another deploy can run this command at the same time, and it must not take our outcome for its own.
            $lock = $files->lock($server->configuration);
            if ($lock->hasNewerThan($began)) {
                $this->info(
                    "Process {$server->pid} has the configuration of a reverb:restart that began after this one, so " .
                        'this one changes nothing.',
                );

                return true;
            }
            // The server executes the file at its own path again, wherever ringverb:install puts another one.
            $program = $processes->program($server->pid) ?? $binary->path();
            [$code, $output] = Binary::run([$program, '--version']);
            if ($code !== 0) {
                $this->error("Process {$server->pid} was not restarted, because {$program} does not run here:");
                $this->line(trim($output));

                return false;
            }
            $files->write($next, $text);
            $problem = $this->refusal($program, $next, $server, $processes);
            if ($problem !== null) {
                $this->error("Process {$server->pid} was not restarted, because the new configuration is refused:");
                $this->line($problem);

                return false;
            }
            $files->write($server->configuration, $text);
            $lock->note($began);
        } catch (RuntimeException $exception) {
            $this->error($exception->getMessage());

            return false;
        } finally {
            @unlink($next);
        }
        $problem = $replacement->run($server);
        if ($problem !== null) {
            $this->error("Restart of process {$server->pid}: {$problem}.");

            return false;
        }
        $this->info("Process {$server->pid} runs the new program and configuration. Its connections were kept.");
        try {
            $next = $binary->path();
            if (realpath($next) !== realpath($program)) {
                $this->warn("It runs {$program}; {$next} takes effect when the supervisor starts it again.");
            }
        } catch (BinaryException $exception) {
            $this->warn("It runs {$program}, but the supervisor cannot start it again. {$exception->getMessage()}");
        }

        return true;
    }

    /**
     * A command of another user would leave files that the server and later commands cannot read.
     *
     * @param  list<RunningServer>  $servers
     *
     * @throws RuntimeException
     */
    private function refuseAnotherUser(array $servers, ProcessTable $processes): void
    {
        foreach ($servers as $server) {
            $user = $processes->user($server->pid);
            if ($user !== null && $user !== $processes->user()) {
                throw new RuntimeException(
                    "Nothing was restarted, because process {$server->pid} belongs to user {$user}. Run this command " .
                        "as that user: sudo -u '#{$user}' php artisan reverb:restart",
                );
            }
        }
    }

    /** What the program has against the configuration; null if nothing. */
    private function refusal(string $program, string $file, RunningServer $server, ProcessTable $processes): ?string
    {
        $command = [$program, 'check', '--offline', '--laravel-config', $file];
        if ($server->environmentFile !== null) {
            array_push($command, '--env-file', $server->environmentFile);
        }
        [$code, $output] = Binary::run($command, null, $processes->ownEnvironment());

        return $code === 0 ? null : trim($output);
    }

    /**
     * Signals the servers of Reverb, and other hosts. The restart of this host does not depend on the cache.
     *
     * @return bool whether they learn of it
     */
    private function request(ServerFiles $files): bool
    {
        try {
            $now = time();
            $this->laravel->make(CacheFactory::class)->store()->forever(self::SIGNAL_OF_REVERB, $now);
        } catch (Throwable $exception) {
            $this->warn(
                "The cache is not available ({$exception->getMessage()}), so servers of Reverb itself, and those " .
                    'of other hosts, continue.',
            );

            return false;
        }
        $files->rememberRequest((string) $now);

        return true;
    }

    /** The first call on a host only remembers what there is. A cache that was cleared requests nothing. */
    private function isRequested(ServerFiles $files): bool
    {
        $request = (string) $this->laravel->make(CacheFactory::class)->store()->get(self::SIGNAL_OF_REVERB, '');
        $last = $files->lastRequest();
        if ($request === '' && $last !== null) {
            return false;
        }
        if ($request !== $last) {
            $files->rememberRequest($request);
        }

        return $last !== null && $request !== $last;
    }
}
