<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Console;

use Illuminate\Console\Command;
use Illuminate\Contracts\Config\Repository;
use Illuminate\Contracts\Queue\Factory as QueueFactory;
use Illuminate\Contracts\Routing\Registrar;
use Ringverb\Laravel\Configuration;
use Ringverb\Laravel\Exceptions\BinaryException;
use Ringverb\Laravel\Exceptions\ConfigurationException;
use Ringverb\Laravel\Health\ServerProbe;
use Ringverb\Laravel\Server\Binary;
use Ringverb\Laravel\Server\ProcessTable;
use Ringverb\Laravel\Server\ServerFiles;
use RuntimeException;
use Throwable;

/** Checks each step between an event of the application and the browser, and prints what to change. */
final class DoctorCommand extends Command
{
    protected $signature = 'ringverb:doctor';

    protected $description = 'Check the application, the program and the running server';

    private int $problems = 0;

    public function handle(
        Configuration $configuration,
        Repository $config,
        Binary $binary,
        ServerFiles $files,
        ProcessTable $processes,
        ServerProbe $probe,
        Registrar $router,
    ): int {
        $this->extensions();
        $this->application($config, $router);
        try {
            $servers = $files->running($processes);
        } catch (RuntimeException $exception) {
            $this->report(false, 'server of this application on this host', $exception->getMessage());

            return self::FAILURE;
        }
        $shown = array_map(static fn($server): string => "{$server->pid}", $servers);
        $this->report(
            $servers !== [],
            'server of this application on this host',
            $servers === [] ? 'none runs: php artisan reverb:start' : 'process ' . implode(', ', $shown),
            false,
        );
        $problem = $probe->problem();
        $this->report($problem === null, 'publishing from PHP', $problem ?? 'the server answers a signed request');
        try {
            $path = $binary->path();
            $this->report(true, 'program', "{$path}, version " . ($binary->version($path) ?? 'unknown'));
            $this->check($path, $configuration, $files, $processes, $servers !== []);
        } catch (BinaryException | ConfigurationException | RuntimeException $exception) {
            $this->report(false, 'program', $exception->getMessage());
        }

        return $this->problems === 0 ? self::SUCCESS : self::FAILURE;
    }

    private function extensions(): void
    {
        $needed = ['pcntl_exec' => 'reverb:start', 'posix_kill' => 'reverb:restart', 'proc_open' => 'reverb:restart'];
        foreach ($needed as $function => $command) {
            $this->report(
                function_exists($function),
                $function,
                function_exists($function)
                    ? 'available'
                    : "{$command} needs it: install the extension, and correct disable_functions",
            );
        }
    }

    private function application(Repository $config, Registrar $router): void
    {
        $default = (string) $config->get('broadcasting.default');
        $driver = $config->get("broadcasting.connections.{$default}.driver");
        $isOurs = in_array($driver, ['reverb', 'pusher'], true);
        $this->report(
            $isOurs,
            'broadcasting.default',
            $isOurs
                ? $default
                : "{$default} sends nothing to this server: set BROADCAST_CONNECTION=reverb, " .
                    'then php artisan config:clear',
        );
        $hasLibrary = class_exists('Pusher\Pusher');
        $this->report(
            $hasLibrary,
            'pusher/pusher-php-server',
            $hasLibrary ? 'installed' : 'missing: composer require pusher/pusher-php-server',
        );
        $routes = array_map(static fn($route): string => $route->uri(), iterator_to_array($router->getRoutes()));
        $hasAuth = in_array('broadcasting/auth', $routes, true);
        $this->report(
            $hasAuth,
            'route broadcasting/auth',
            $hasAuth
                ? 'registered'
                : 'missing: php artisan install:broadcasting makes routes/channels.php, which private channels need',
            false,
        );
        $queue = (string) $config->get('queue.default');
        if ($queue !== 'sync') {
            $waiting = $this->waitingJobs();
            $this->report(
                $waiting === 0,
                'queue',
                ($waiting === 0 ? $queue : "{$queue}, {$waiting} jobs wait") .
                    ': ShouldBroadcast needs a worker (php artisan queue:work); ShouldBroadcastNow does not',
                false,
            );
        }
        $key = (string) $config->get("broadcasting.connections.{$default}.key");
        $apps = array_column((array) $config->get('reverb.apps.apps'), 'key');
        if ($isOurs && $config->get('reverb.apps.provider', 'config') === 'config') {
            $isServed = $key !== '' && in_array($key, $apps, true);
            $this->report(
                $isServed,
                'app key',
                match (true) {
                    $key === '' => 'REVERB_APP_KEY is not set: php artisan ringverb:install',
                    $isServed => 'config/broadcasting.php and config/reverb.php agree',
                    default => 'the key of config/broadcasting.php is no app of config/reverb.php: compare both, ' .
                        'then php artisan config:clear',
                },
            );
        }
    }

    /** Jobs of the default queue, which a worker takes within a moment. 0 also for a queue that does not answer. */
    private function waitingJobs(): int
    {
        try {
            return (int) $this->laravel->make(QueueFactory::class)->connection()->size();
        } catch (Throwable) {
            return 0;
        }
    }

    private function check(
        string $program,
        Configuration $configuration,
        ServerFiles $files,
        ProcessTable $processes,
        bool $isRunning,
    ): void {
        $file = $files->configuration('doctor', $configuration->port());
        try {
            $files->write($file, $configuration->json());
            $command = [$program, 'check', '--laravel-config', $file];
            // The port of a running server is taken, which is no problem.
            if ($isRunning) {
                $command[] = '--offline';
            }
            $environmentFile = $this->laravel->environmentFilePath();
            if (is_file($environmentFile)) {
                array_push($command, '--env-file', $environmentFile);
            }
            [$code, $output] = Binary::run($command, null, $processes->ownEnvironment());
        } finally {
            @unlink($file);
        }
        $this->report($code === 0, 'ringverb check', $code === 0 ? 'no problem' : "\n" . trim($output));
    }

    private function report(bool $isGood, string $what, string $text, bool $counts = true): void
    {
        $mark = $isGood ? '<info>ok     </info>' : ($counts ? '<error>problem</error>' : '<comment>note   </comment>');
        $this->line("{$mark} {$what}: {$text}");
        $this->problems += !$isGood && $counts ? 1 : 0;
    }
}
