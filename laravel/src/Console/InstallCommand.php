<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Console;

use Illuminate\Console\Command;
use Ringverb\Laravel\Exceptions\BinaryException;
use Ringverb\Laravel\Server\Binary;
use Ringverb\Laravel\Server\Release;
use Ringverb\Laravel\Server\ServerFiles;

/** Installs the program, and adds the names that .env lacks. It shows what it changes, and asks first. */
final class InstallCommand extends Command
{
    protected $signature = 'ringverb:install
        {--release= : Version to download, also if a program is there}
        {--from= : URL or folder of the archive}
        {--sha256= : SHA-256 sum of the archive, for a release that this package does not know}
        {--force : Do not ask}';

    protected $description = 'Install the program ringverb, and the names in .env that it needs';

    public function handle(Binary $binary): int
    {
        try {
            $release = $this->release($binary);
        } catch (BinaryException $exception) {
            $this->error($exception->getMessage());

            return self::FAILURE;
        }
        $added = $this->missingNames();
        $file = $this->laravel->environmentFilePath();
        $plan = [];
        if ($release !== null) {
            $plan[] =
                "download {$release->url()}, check its SHA-256 sum {$release->sha256}, " .
                "and put its program at {$binary->installed()}, and a .gitignore into " .
                dirname($binary->installed(), 2);
        }
        if ($added !== [] && !is_writable(is_file($file) ? $file : dirname($file))) {
            $this->error("Cannot write {$file}: run this command as its owner. Nothing was changed.");

            return self::FAILURE;
        }
        if ($added !== []) {
            $plan[] = "set in {$file}: " . implode(', ', array_map(self::shown(...), array_keys($added), $added));
        }
        if ($plan === []) {
            $path = $binary->path();
            $this->info(
                "Nothing to do: {$path} is version {$this->versionOf($binary, $path)}, and .env has what it needs.",
            );

            return self::SUCCESS;
        }
        $this->line('This will');
        foreach ($plan as $step) {
            $this->line('  - ' . $step);
        }
        if (!$this->option('force') && $this->input->isInteractive() && !$this->confirm('Go on?', true)) {
            return self::FAILURE;
        }
        try {
            if ($release !== null) {
                $release->install($binary->installed(), Release::download(...));
                ServerFiles::ignoreInGit(dirname($binary->installed(), 2));
            }
            if ($added !== []) {
                $text = is_file($file) ? (string) file_get_contents($file) : '';
                file_put_contents($file, self::withNames($text, $added));
            }
            $path = $binary->path();
        } catch (BinaryException $exception) {
            $this->error($exception->getMessage());

            return self::FAILURE;
        }
        $version = $binary->version($path);
        if ($version === null) {
            $this->error("{$path} does not run on this machine: it needs Linux with glibc 2.28 or newer.");

            return self::FAILURE;
        }
        if ($added !== [] && $this->laravel->configurationIsCached()) {
            $this->warn('The configuration is cached, so .env is not read: php artisan config:clear');
        }
        $this->info("{$path} is version {$version}. Start it with php artisan reverb:start; " .
            'php artisan reverb:restart gives it to a server that runs.');

        return self::SUCCESS;
    }

    /**
     * What to download; null if a program is there already.
     *
     * @throws BinaryException
     */
    private function release(Binary $binary): ?Release
    {
        $wanted = $this->option('release');
        if ($wanted === null && $this->option('from') === null) {
            $found = config('ringverb.binary') ? $binary->path() : $binary->find();
            if ($found !== null) {
                return null;
            }
        }
        $pinned = json_decode(
            (string) file_get_contents(__DIR__ . '/../../resources/releases.json'),
            true,
            512,
            JSON_THROW_ON_ERROR,
        );

        return Release::find($pinned, $wanted, $this->option('from'), $this->option('sha256'), php_uname('m'));
    }

    /** @return array<string, string> names that neither .env nor the environment has, with values */
    private function missingNames(): array
    {
        $apps = (array) config('reverb.apps.apps');
        $names = [];
        // Apps of another provider, or apps that config/reverb.php has by hand, need no names in .env.
        if (config('reverb.apps.provider', 'config') === 'config' && !($apps[0]['app_id'] ?? null)) {
            $names = [
                'REVERB_APP_ID' => (string) random_int(100_000, 999_999),
                'REVERB_APP_KEY' => bin2hex(random_bytes(10)),
                'REVERB_APP_SECRET' => bin2hex(random_bytes(20)),
                'REVERB_HOST' => 'localhost',
                'REVERB_PORT' => '8080',
                'REVERB_SCHEME' => 'http',
                'VITE_REVERB_APP_KEY' => '"${REVERB_APP_KEY}"',
                'VITE_REVERB_HOST' => '"${REVERB_HOST}"',
                'VITE_REVERB_PORT' => '"${REVERB_PORT}"',
                'VITE_REVERB_SCHEME' => '"${REVERB_SCHEME}"',
            ];
        }
        if (!in_array(config('broadcasting.default'), ['reverb', 'pusher'], true)) {
            $names['BROADCAST_CONNECTION'] = 'reverb';
        }
        $file = $this->laravel->environmentFilePath();
        $text = is_file($file) ? (string) file_get_contents($file) : '';

        // Lines of the file that the configuration does not use, such as literal apps, stay as they are.
        return array_filter(
            $names,
            static fn(string $name): bool => $name === 'BROADCAST_CONNECTION' ||
                preg_match("/^{$name}=/m", $text) !== 1,
            ARRAY_FILTER_USE_KEY,
        );
    }

    /**
     * The text of .env with these values: a line of the same name is replaced, the others come at the end.
     *
     * @param  array<string, string>  $values
     */
    public static function withNames(string $text, array $values): string
    {
        // A file of Windows keeps its line ends.
        $end = str_contains($text, "\r\n") ? "\r\n" : "\n";
        foreach ($values as $name => $value) {
            $line = "{$name}={$value}";
            $text = preg_replace_callback("/^{$name}=[^\r\n]*/m", static fn(): string => $line, $text, 1, $count);
            if ($count === 0) {
                $text = ($text === '' ? '' : rtrim($text, "\r\n") . $end) . $line . $end;
            }
        }

        return $text;
    }

    /** What the plan shows of a name. */
    private static function shown(string $name, string $value): string
    {
        return match ($name) {
            'REVERB_APP_ID', 'REVERB_APP_KEY', 'REVERB_APP_SECRET' => "{$name} (generated)",
            'BROADCAST_CONNECTION' => "{$name}={$value} in place of " . config('broadcasting.default', 'null'),
            default => "{$name}={$value}",
        };
    }

    private function versionOf(Binary $binary, string $path): string
    {
        return $binary->version($path) ?? 'unknown (it does not run here)';
    }
}
