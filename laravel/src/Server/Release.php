<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Server;

use Ringverb\Laravel\Exceptions\BinaryException;

/**
 * One archive of a release for this machine, and the SHA-256 sum that it must have. The sums are part of this package
 * (resources/releases.json), so that a changed archive at the source is noticed.
 */
final class Release
{
    /** Seconds without a byte. */
    private const TIMEOUT = 60;

    private const WRITABLE =
        'it must belong to the user of this command, or RINGVERB_STATE must name another folder.';

    public function __construct(
        public readonly string $version,
        public readonly string $archive,
        public readonly string $source,
        public readonly string $sha256,
    ) {}

    /**
     * @param  array{source?: string|null, releases?: array<string, array<string, string>>}  $pinned
     *
     * @throws BinaryException
     */
    public static function find(
        array $pinned,
        ?string $version,
        ?string $source,
        ?string $sha256,
        string $machine,
        string $system = PHP_OS_FAMILY,
    ): self {
        if ($system !== 'Linux') {
            throw new BinaryException(
                "The server needs Linux, and this is {$system}: run it in a container (docs/laravel-migration.md, " .
                    '"By host").',
            );
        }
        $architecture = match ($machine) {
            'x86_64', 'amd64' => 'x86_64',
            'aarch64', 'arm64' => 'aarch64',
            default => throw new BinaryException(
                "There is no archive for {$machine}: build ringverb from source with cargo.",
            ),
        };
        $releases = $pinned['releases'] ?? [];
        $version ??= array_key_last($releases);
        if ($version === null) {
            throw new BinaryException(
                'This version of the package knows no release: name one with --release=VERSION --from=URL_OR_FOLDER ' .
                    '--sha256=SUM, or build ringverb from source with cargo and set RINGVERB_BINARY.',
            );
        }
        if (preg_match('/^\d+\.\d+\.\d+[0-9A-Za-z.-]*$/', $version) !== 1) {
            throw new BinaryException("--release={$version} is no version such as 0.1.0.");
        }
        $archive = "ringverb-{$version}-{$architecture}-linux.tar.gz";
        $sha256 ??= $releases[$version][$archive] ?? null;
        if ($sha256 === null) {
            throw new BinaryException(
                "This version of the package has no SHA-256 sum of {$archive}: update the package, or give the sum " .
                    'of a source that you trust with --sha256=SUM.',
            );
        }
        if (preg_match('/^[0-9a-f]{64}$/', $sha256) !== 1) {
            throw new BinaryException('--sha256 must be 64 hexadecimal digits in small letters.');
        }
        $source ??= $pinned['source'] ?? null;
        if ($source === null || $source === '') {
            throw new BinaryException("No place of {$archive} is known: name its folder or URL with --from=.");
        }

        return new self($version, $archive, rtrim($source, '/'), $sha256);
    }

    public function url(): string
    {
        return "{$this->source}/{$this->archive}";
    }

    /**
     * Puts the program of the archive at this path, by rename: a running server keeps its own file.
     *
     * @param  callable(string, string): void  $fetch  copies a URL to a file
     *
     * @throws BinaryException
     */
    public function install(string $path, callable $fetch): void
    {
        $folder = dirname($path);
        if (!is_dir($folder) && !@mkdir($folder, 0755, true) && !is_dir($folder)) {
            throw new BinaryException("Cannot make the folder {$folder}: " . self::WRITABLE);
        }
        $work = $folder . '/.install-' . bin2hex(random_bytes(4));
        try {
            $archive = $work . '.tar.gz';
            if (!is_writable($folder)) {
                throw new BinaryException("Cannot write to {$folder}: " . self::WRITABLE);
            }
            if (is_dir($path)) {
                throw new BinaryException("{$path} is a folder, and the program must be there: remove the folder.");
            }
            if (!is_dir($this->source)) {
                $fetch($this->url(), $archive);
            } elseif (!@copy($this->url(), $archive)) {
                throw new BinaryException("Cannot read {$this->url()}: is it the folder of the archive?");
            }
            $found = (string) @hash_file('sha256', $archive);
            if (!hash_equals($this->sha256, $found)) {
                throw new BinaryException(
                    "{$this->url()} has the SHA-256 sum {$found}, and {$this->sha256} is the right one. " .
                        'Nothing was installed.',
                );
            }
            @mkdir($work, 0700);
            [$code, $output] = Binary::run(['tar', '-xzf', $archive, '-C', $work, '--no-same-owner']);
            $program = self::programIn($work);
            if ($code !== 0 || $program === null) {
                throw new BinaryException("{$this->archive} has no program bin/ringverb. {$output}");
            }
            chmod($program, 0755);
            // A program that does not run here must not take the place of one that does.
            [$code, $output] = Binary::run([$program, '--version']);
            if ($code !== 0) {
                throw new BinaryException(
                    'The program of the archive does not run on this machine (' .
                        trim($output) .
                        '): it needs Linux with glibc 2.28 or newer, and a disk without noexec. Nothing was installed.',
                );
            }
            if (!@rename($program, $path)) {
                throw new BinaryException("Cannot write {$path}: " . self::WRITABLE);
            }
        } finally {
            @unlink($work . '.tar.gz');
            Binary::run(['rm', '-rf', $work]);
        }
    }

    /** The one `NAME/bin/ringverb` of the folder. */
    private static function programIn(string $folder): ?string
    {
        $found = array_filter(
            array_map(static fn(string $name): string => "{$folder}/{$name}/bin/ringverb", @scandir($folder) ?: []),
            static fn(string $path): bool => !str_contains($path, '/./') &&
                !str_contains($path, '/../') &&
                is_file($path),
        );

        return count($found) === 1 ? reset($found) : null;
    }

    /**
     * Copies a URL to a file. PHP checks the certificate, and follows redirects.
     *
     * @throws BinaryException
     */
    public static function download(string $url, string $file): void
    {
        if (!str_starts_with($url, 'https://')) {
            throw new BinaryException("{$url} is neither a folder nor an https URL.");
        }
        $reasons = [];
        // Laravel's handler would take the warnings, and nothing would have their texts.
        set_error_handler(static function (int $level, string $text) use (&$reasons): bool {
            $reasons[] = trim((string) preg_replace(['/^copy\([^)]*\): /', '/\s+/'], ['', ' '], $text));

            return true;
        });
        try {
            $isCopied = copy($url, $file, stream_context_create(['http' => ['timeout' => self::TIMEOUT]]));
        } finally {
            restore_error_handler();
        }
        if (!$isCopied) {
            $hint = str_contains($reasons[0] ?? '', 'certificate')
                ? '. For an authority of your own: php -d openssl.cafile=FILE artisan ringverb:install'
                : '';
            throw new BinaryException("{$url} cannot be downloaded: " . ($reasons[0] ?? 'unknown reason') . $hint);
        }
    }
}
