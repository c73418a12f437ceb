<?php

declare(strict_types=1);

namespace Ringverb\Laravel;

use Illuminate\Contracts\Auth\Access\Gate;
use Illuminate\Contracts\Cache\Factory as CacheFactory;
use Illuminate\Contracts\Foundation\Application;
use Illuminate\Foundation\Console\AboutCommand;
use Illuminate\Support\Facades\Route;
use Illuminate\Support\ServiceProvider;
use Laravel\Pulse\Pulse;
use Livewire\LivewireManager;
use Ringverb\Laravel\Admin\AdminListener;
use Ringverb\Laravel\Admin\ConsoleController;
use Ringverb\Laravel\Console\DoctorCommand;
use Ringverb\Laravel\Console\InstallCommand;
use Ringverb\Laravel\Console\RestartCommand;
use Ringverb\Laravel\Console\StartCommand;
use Ringverb\Laravel\Pulse\ConnectionsCard;
use Ringverb\Laravel\Pulse\MessagesCard;
use Ringverb\Laravel\Pulse\RecordConnections;
use Ringverb\Laravel\Pulse\RecordMessages;
use Ringverb\Laravel\Server\Binary;
use Ringverb\Laravel\Server\ProcessTable;
use Ringverb\Laravel\Server\Replacement;
use Ringverb\Laravel\Server\ServerFiles;
use Ringverb\Laravel\Webhooks\WebhookController;
use Ringverb\Laravel\Webhooks\WebhookVerifier;
use RuntimeException;

final class RingverbServiceProvider extends ServiceProvider
{
    private const START = 'Laravel\Reverb\Servers\Reverb\Console\Commands\StartServer';

    private const PULSE = 'Laravel\Reverb\Pulse\Recorders';

    private const RESTART = 'Laravel\Reverb\Servers\Reverb\Console\Commands\RestartServer';

    public function register(): void
    {
        $this->mergeConfigFrom(__DIR__ . '/../config/ringverb.php', 'ringverb');
        if (!self::hasReverb()) {
            $this->mergeConfigFrom(__DIR__ . '/../config/reverb.php', 'reverb');
        }
        // routes/channels.php makes a connection in each command.
        if ($this->app->runningConsoleCommand('ringverb:install', 'ringverb:doctor')) {
            Configuration::allowMissingCredentials($this->app->make('config'));
        }
        $state = static fn(Application $app): string => rtrim(
            (string) $app->make('config')->get('ringverb.state'),
            '/',
        );
        // These hold the application or its configuration, which Octane copies for each request.
        $this->app->bind(
            Configuration::class,
            static fn(Application $app): Configuration => new Configuration($app, $app->make('config')),
        );
        $this->app->singleton(
            Binary::class,
            static fn(Application $app): Binary => new Binary(
                $app->make('config')->get('ringverb.binary'),
                $state($app),
            ),
        );
        $this->app->singleton(
            ServerFiles::class,
            static fn(Application $app): ServerFiles => new ServerFiles($state($app)),
        );
        $this->app->singleton(ProcessTable::class, static fn(): ProcessTable => new ProcessTable());
        $this->app->singleton(
            Replacement::class,
            static fn(Application $app): Replacement => new Replacement($app->make(ProcessTable::class)),
        );
        $this->app->bind(AdminListener::class, static function (Application $app): AdminListener {
            $config = $app->make('config');
            $server = (array) $config->get('reverb.servers.reverb', []);

            return new AdminListener(
                (string) ($config->get('ringverb.console.admin') ?? $server['admin'] ?? '127.0.0.1:9601'),
                $config->get('ringverb.console.token') ?? $server['admin_token'] ?? null,
            );
        });
        $this->app->bind(WebhookVerifier::class, static function (Application $app): WebhookVerifier {
            $config = $app->make('config');

            return new WebhookVerifier(
                $app->make(Configuration::class),
                $app->make(CacheFactory::class)->store($config->get('ringverb.webhooks.store')),
                (int) $config->get('ringverb.webhooks.window', 600),
                static fn(): float => microtime(true),
            );
        });
        // Artisan makes the commands of Reverb with the container. So `reverb:start` runs ringverb for all that call
        // it: artisan dev, Forge, Supervisor, Sail.
        $this->app->bind(self::START, StartCommand::class);
        $this->app->bind(self::RESTART, RestartCommand::class);
        // Pulse makes the recorders of config/pulse.php with the container.
        $this->app->bind(self::PULSE . '\ReverbConnections', RecordConnections::class);
        $this->app->bind(self::PULSE . '\ReverbMessages', RecordMessages::class);
    }

    public function boot(): void
    {
        $path = $this->app->make('config')->get('ringverb.webhooks.path');
        if (is_string($path) && $path !== '') {
            Route::post($path, WebhookController::class)
                ->middleware((array) $this->app->make('config')->get('ringverb.webhooks.middleware', []))
                ->name('ringverb.webhook');
        }
        $this->bootConsole();
        $this->bootPulse();
        if (!$this->app->runningInConsole()) {
            return;
        }
        $this->publishes(
            [__DIR__ . '/../config/ringverb.php' => $this->app->configPath('ringverb.php')],
            ['ringverb', 'ringverb-config'],
        );
        $this->commands([InstallCommand::class, DoctorCommand::class]);
        if (!self::hasReverb()) {
            $this->commands([StartCommand::class, RestartCommand::class]);
            if (method_exists($this, 'reloads')) {
                $this->reloads('reverb:restart', 'reverb');
            }
        }
        if (class_exists(AboutCommand::class)) {
            AboutCommand::add('Ringverb', fn(): array => $this->about());
        }
    }

    private function bootConsole(): void
    {
        $this->callAfterResolving(Gate::class, static function (Gate $gate, Application $app): void {
            if (!$gate->has(ConsoleController::GATE)) {
                $gate->define(ConsoleController::GATE, static fn($user = null): bool => $app->environment('local'));
            }
        });
        $path = $this->app->make('config')->get('ringverb.console.path');
        if (!is_string($path) || $path === '') {
            return;
        }
        Route::middleware((array) $this->app->make('config')->get('ringverb.console.middleware', ['web']))
            ->prefix($path)
            ->group(static function (): void {
                Route::get('/', ConsoleController::class)->name('ringverb.console');
                Route::any('/{target}', ConsoleController::class)->where('target', 'api/.+|[a-z]+\.(?:js|css)');
            });
    }

    /** The cards have the names of Reverb's, which published dashboards use. So they are registered after those. */
    private function bootPulse(): void
    {
        if (!$this->app->bound(Pulse::class)) {
            return;
        }
        $this->loadViewsFrom(__DIR__ . '/../resources/views', 'ringverb');
        $this->app->booted(function (): void {
            $this->callAfterResolving('livewire', static function (LivewireManager $livewire): void {
                $livewire->component('reverb.connections', ConnectionsCard::class);
                $livewire->component('reverb.messages', MessagesCard::class);
            });
        });
    }

    private static function hasReverb(): bool
    {
        return class_exists(self::START);
    }

    /** @return array<string, string> */
    private function about(): array
    {
        $binary = $this->app->make(Binary::class);
        $path = $binary->find();
        try {
            $servers = $this->app->make(ServerFiles::class)->running($this->app->make(ProcessTable::class));
            $shown = array_map(
                static fn($server): string => basename($server->configuration, '.json') . " (process {$server->pid})",
                $servers,
            );
        } catch (RuntimeException $exception) {
            $shown = [$exception->getMessage()];
        }

        return [
            'Program' => $path ?? 'not installed',
            'Version' => $path === null ? '-' : $binary->version($path) ?? 'does not run here',
            'Servers on this host' => $shown === [] ? 'none' : implode(', ', $shown),
        ];
    }
}
