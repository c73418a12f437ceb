<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Server;

use Ringverb\Laravel\Exceptions\BinaryException;

/** Where the program is: the configured place, the folder of ringverb:install, or the PATH. */
final class Binary
{
    /** @param string|null $configured a path that must exist, if one is given */
    public function __construct(private readonly ?string $configured, private readonly string $state) {}

    /** Where ringverb:install puts the program. */
    public function installed(): string
    {
        return $this->state . '/bin/ringverb';
    }

    /** @throws BinaryException */
    public function path(): string
    {
        return $this->find() ??
            throw new BinaryException(
                $this->isConfigured()
                    ? "RINGVERB_BINARY is {$this->configured}, which is no program: correct it, or leave it empty."
                    : "The program ringverb is neither at {$this->installed()} nor in the PATH: " .
                        'run php artisan ringverb:install, or set RINGVERB_BINARY.',
            );
    }

    /** The program that reverb:start runs. */
    public function find(): ?string
    {
        if ($this->isConfigured()) {
            return self::isProgram((string) $this->configured) ? $this->configured : null;
        }
        $folders = array_filter(explode(PATH_SEPARATOR, (string) getenv('PATH')));
        $candidates = [
            $this->installed(),
            ...array_map(static fn(string $folder): string => $folder . '/ringverb', $folders),
        ];
        foreach ($candidates as $path) {
            if (self::isProgram($path)) {
                return $path;
            }
        }

        return null;
    }

    /** The version, such as "0.1.0"; null if the program does not run here. */
    public function version(string $path): ?string
    {
        [$code, $output] = self::run([$path, '--version']);

        return $code === 0 && preg_match('/^ringverb (\S+)/', $output, $match) === 1 ? $match[1] : null;
    }

    /** @throws BinaryException if this is another program, or one for another machine */
    public function refuseOther(string $path): void
    {
        // Without proc_open only the start itself shows it.
        if (function_exists('proc_open') && $this->version($path) === null) {
            throw new BinaryException(
                "{$path} is not the program ringverb, or does not run here: {$path} --version shows which. Correct " .
                    'RINGVERB_BINARY, or run php artisan ringverb:install.',
            );
        }
    }

    /**
     * @param  list<string>  $command
     * @param  array<string, string>|null  $environment
     * @return array{int, string} exit code, and standard output with standard error
     */
    public static function run(array $command, ?string $folder = null, ?array $environment = null): array
    {
        if (!function_exists('proc_open')) {
            return [127, 'this PHP has no proc_open: remove it from disable_functions'];
        }
        // A program that is missing is a warning, which Laravel makes an exception.
        $process = @proc_open(
            $command,
            [['file', '/dev/null', 'r'], ['pipe', 'w'], ['redirect', 1]],
            $pipes,
            $folder,
            $environment,
        );
        if ($process === false) {
            return [127, "cannot run {$command[0]}"];
        }
        $output = (string) stream_get_contents($pipes[1]);
        fclose($pipes[1]);

        return [proc_close($process), $output];
    }

    private function isConfigured(): bool
    {
        return $this->configured !== null && $this->configured !== '';
    }

    /** vendor/bin/ringverb is this package's own script, which would find itself. */
    private static function isProgram(string $path): bool
    {
        return is_file($path) &&
            is_executable($path) &&
            @file_get_contents($path, false, null, 0, 4) === "\x7fELF";
    }
}
