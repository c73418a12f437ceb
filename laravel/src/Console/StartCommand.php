<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Console;

use Illuminate\Console\Command;
use Ringverb\Laravel\Configuration;
use Ringverb\Laravel\Exceptions\BinaryException;
use Ringverb\Laravel\Exceptions\ConfigurationException;
use Ringverb\Laravel\Server\Binary;
use Ringverb\Laravel\Server\ProcessTable;
use Ringverb\Laravel\Server\ProgramLauncher;
use Ringverb\Laravel\Server\RunningServer;
use Ringverb\Laravel\Server\ServerFiles;
use RuntimeException;

/** Takes the place of Reverb's command, with the same options. This process becomes the server. */
final class StartCommand extends Command
{
    protected $signature = 'reverb:start
        {--host= : Address to listen on}
        {--port= : Port to listen on}
        {--path= : Prefix of every URL path}
        {--hostname= : Host name of URLs in the start message}
        {--debug : Print each message}';

    protected $description = 'Start the WebSocket server (ringverb)';

    public function handle(
        Configuration $configuration,
        Binary $binary,
        ServerFiles $files,
        ProcessTable $processes,
        ProgramLauncher $launcher,
    ): int {
        $isClaimed = false;
        try {
            $program = $binary->path();
            $binary->refuseOther($program);
            $text = $configuration->json();
            $port = $this->option('port') ?? (string) $configuration->port();
            $file = $files->configuration($this->option('host') ?? $configuration->host(), (int) $port);
            $environmentFile = $this->environmentFile();
            $this->refuseSecond($files, $processes, $file);
            // Two starts at the same time would both find no server. The lock ends before the process becomes the
            // server. The claim names this process from then on, so a later start finds it.
            $lock = $files->lock($file);
            $this->refuseSecond($files, $processes, $file);
            $files->write($file, $text);
            $isClaimed = $this->claim($files, $processes, $file, $environmentFile);
            unset($lock);
            $this->closeConnections();
            $launcher->replaceProcess(
                $program,
                $this->serverArguments($file, $environmentFile),
                $this->serverEnvironment($processes->ownEnvironment() ?? []),
            );
        } catch (BinaryException | ConfigurationException | RuntimeException $exception) {
            $this->error($exception->getMessage());
            // The claim of another process stays.
            if ($isClaimed) {
                $files->release($file);
            }

            return self::FAILURE;
        }
    }

    /**
     * `artisan dev` shows the log of the server through a pipe, where it would be JSON.
     *
     * @param  array<string, string>  $environment
     * @return array<string, string>
     */
    private function serverEnvironment(array $environment): array
    {
        $isLocal = method_exists($this->laravel, 'environment') && $this->laravel->environment('local');
        if ($isLocal && getenv('RINGVERB_LOG_FORMAT') === false) {
            $environment['RINGVERB_LOG_FORMAT'] = 'text';
        }

        return $environment;
    }

    /**
     * The claim of a living server must stay, or reverb:restart would not find it.
     *
     * @throws RuntimeException
     */
    private function refuseSecond(ServerFiles $files, ProcessTable $processes, string $file): void
    {
        foreach ($files->running($processes) as $server) {
            if ($server->configuration === $file) {
                throw new RuntimeException(
                    "Process {$server->pid} is the server of this application at this address already: " .
                        'php artisan reverb:restart gives it the new program and configuration.',
                );
            }
        }
    }

    /** @return bool whether there is a claim now */
    private function claim(ServerFiles $files, ProcessTable $processes, string $file, ?string $environmentFile): bool
    {
        $pid = (int) getmypid();
        $identity = $processes->identity($pid);
        if ($identity === null) {
            $this->warn('/proc is not readable, so reverb:restart will not find this server: send SIGUSR2 to it.');

            return false;
        }
        $server = new RunningServer($pid, $identity, $file, $environmentFile);
        $files->claim($file, $server, $processes->processIdsOf());

        return true;
    }

    /** @return list<string> */
    private function serverArguments(string $file, ?string $environmentFile): array
    {
        $arguments = ['start', '--laravel-config', $file];
        if ($environmentFile !== null) {
            array_push($arguments, '--env-file', $environmentFile);
        }
        foreach (['host', 'port', 'path', 'hostname'] as $name) {
            $value = $this->option($name);
            if ($value !== null && $value !== '') {
                $arguments[] = "--{$name}={$value}";
            }
        }
        if ($this->option('debug')) {
            $arguments[] = '--debug';
        }

        return $arguments;
    }

    /** Laravel's own file, .env.NAME with --env=NAME. A symbolic link of a release folder is resolved. */
    private function environmentFile(): ?string
    {
        $path = method_exists($this->laravel, 'environmentFilePath') ? $this->laravel->environmentFilePath() : '.env';

        return is_file($path) ? (realpath($path) ?: $path) : null;
    }

    /** The server would inherit the sockets, and keep them open for as long as it runs. */
    private function closeConnections(): void
    {
        if ($this->laravel->resolved('db')) {
            foreach ($this->laravel->make('db')->getConnections() as $connection) {
                $connection->disconnect();
            }
        }
        if ($this->laravel->resolved('redis')) {
            foreach (array_keys($this->laravel->make('redis')->connections() ?? []) as $name) {
                $this->laravel->make('redis')->purge($name);
            }
        }
    }
}
