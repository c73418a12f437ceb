<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Tests;

use PHPUnit\Framework\TestCase;
use Ringverb\Laravel\Console\InstallCommand;
use Ringverb\Laravel\Exceptions\BinaryException;
use Ringverb\Laravel\Server\Binary;
use Ringverb\Laravel\Server\Release;

final class ReleaseTest extends TestCase
{
    private string $folder;

    protected function setUp(): void
    {
        $this->folder = TestApplication::folder();
    }

    protected function tearDown(): void
    {
        TestApplication::remove($this->folder);
    }

    private function archive(?string $script = null): string
    {
        $tree = $this->folder . '/ringverb-1.2.3-x86_64-linux';
        mkdir($tree . '/bin', 0700, true);
        $script === null
            ? copy(TestApplication::program(), $tree . '/bin/ringverb')
            : file_put_contents($tree . '/bin/ringverb', $script);
        $archive = $tree . '.tar.gz';
        [$code] = Binary::run(['tar', '-I', 'gzip -1', '-cf', $archive, '-C', $this->folder, basename($tree)]);
        self::assertSame(0, $code);

        return $archive;
    }

    public function test_what_is_not_pinned_or_not_known_is_refused(): void
    {
        $sum = str_repeat('a', 64);
        $pinned = [
            'source' => 'https://example.com',
            'releases' => ['1.2.3' => ['ringverb-1.2.3-x86_64-linux.tar.gz' => $sum]],
        ];
        $found = Release::find($pinned, null, null, null, 'amd64');
        self::assertSame('https://example.com/ringverb-1.2.3-x86_64-linux.tar.gz', $found->url());
        self::assertSame($sum, $found->sha256);
        foreach (
            [
                [[], null, null, null, 'x86_64', 'knows no release'],
                [$pinned, null, null, null, 'riscv64', 'no archive for riscv64'],
                [$pinned, '9.9.9', null, null, 'x86_64', 'no SHA-256 sum of ringverb-9.9.9'],
                [$pinned, '1.2.3', null, null, 'aarch64', 'no SHA-256 sum of ringverb-1.2.3-aarch64'],
                [$pinned, '../1.2.3', null, $sum, 'x86_64', 'is no version'],
                [$pinned, '9.9.9', null, 'abc', 'x86_64', '64 hexadecimal digits'],
                [['releases' => $pinned['releases']], null, null, null, 'x86_64', '--from='],
            ]
            as [$table, $version, $source, $sha256, $machine, $part]
        ) {
            try {
                Release::find($table, $version, $source, $sha256, $machine);
                self::fail($part);
            } catch (BinaryException $exception) {
                self::assertStringContainsString($part, $exception->getMessage());
            }
        }
    }

    public function test_an_archive_with_the_right_sum_is_installed_and_another_one_changes_nothing(): void
    {
        $archive = $this->archive();
        $path = $this->folder . '/storage/bin/ringverb';
        $fetch = static fn(): mixed => self::fail('nothing is downloaded from a folder');
        (new Release('1.2.3', basename($archive), $this->folder, (string) hash_file('sha256', $archive)))->install(
            $path,
            $fetch,
        );
        self::assertFileEquals(TestApplication::program(), $path);
        self::assertSame(0755, fileperms($path) & 0777);
        self::assertNotNull((new Binary(null, $this->folder . '/storage'))->version($path));
        $before = fileinode($path);
        try {
            (new Release('1.2.3', basename($archive), $this->folder, str_repeat('0', 64)))->install($path, $fetch);
            self::fail('a wrong sum was accepted');
        } catch (BinaryException $exception) {
            self::assertStringContainsString('is the right one. Nothing was installed.', $exception->getMessage());
        }
        clearstatcache();
        self::assertSame($before, fileinode($path));
        self::assertSame(['ringverb'], array_values(array_diff((array) scandir(dirname($path)), ['.', '..'])));
    }

    public function test_what_is_in_the_way_is_named_and_a_program_that_does_not_run_changes_nothing(): void
    {
        $archive = $this->archive("#!/bin/sh\necho 'version GLIBC_2.99 not found'\nexit 1\n");
        $install = function (string $path, string $sum = '', string $from = '') use ($archive): string {
            $sum = $sum ?: (string) hash_file('sha256', $archive);
            try {
                (new Release('1.2.3', basename($archive), $from ?: $this->folder, $sum))->install(
                    $path,
                    static fn(): mixed => self::fail('nothing is downloaded from a folder'),
                );
            } catch (BinaryException $exception) {
                return $exception->getMessage();
            }

            return '';
        };
        // A file where the folder must be; a folder where the program must be.
        touch($this->folder . '/file');
        $text = $install($this->folder . '/file/bin/ringverb');
        self::assertStringContainsString("Cannot make the folder {$this->folder}/file/bin", $text);
        self::assertStringContainsString('RINGVERB_STATE', $text);
        mkdir($this->folder . '/taken/ringverb', 0700, true);
        self::assertStringContainsString('is a folder', $install($this->folder . '/taken/ringverb'));
        mkdir($this->folder . '/empty');
        $text = $install($this->folder . '/bin/ringverb', '', $this->folder . '/empty');
        self::assertStringContainsString('Cannot read', $text);
        file_put_contents($this->folder . '/bin/ringverb', 'the old program');
        $text = $install($this->folder . '/bin/ringverb');
        self::assertStringContainsString('does not run on this machine (version GLIBC_2.99 not found)', $text);
        self::assertStringEqualsFile($this->folder . '/bin/ringverb', 'the old program');
        self::assertSame(['ringverb'], array_values(array_diff((array) scandir($this->folder . '/bin'), ['.', '..'])));
        $this->expectExceptionMessage('The server needs Linux, and this is Darwin');
        Release::find([], null, null, null, 'arm64', 'Darwin');
    }

    public function test_a_download_needs_a_certificate_that_this_host_trusts(): void
    {
        [$port, $authority, $server] = self::httpsServer($this->folder);
        try {
            $url = "https://localhost:{$port}/archive";
            $failure = static function (string $url, string $file): string {
                try {
                    Release::download($url, $file);
                } catch (BinaryException $exception) {
                    return $exception->getMessage();
                }

                return '';
            };
            $file = $this->folder . '/downloaded';
            self::assertStringContainsString('certificate verify failed', $failure($url, $file));
            self::assertStringContainsString('openssl.cafile', $failure($url, $file));
            // OpenSSL reads it for each connection; openssl.cafile cannot be set while PHP runs.
            putenv("SSL_CERT_FILE={$authority}");
            self::assertStringContainsString('404', $failure("https://localhost:{$port}/other", $file));
            Release::download($url, $file);
            self::assertStringEqualsFile($file, 'the archive');
            self::assertStringContainsString('neither', $failure("http://localhost:{$port}/archive", $file));
        } finally {
            putenv('SSL_CERT_FILE');
            proc_terminate($server);
            proc_close($server);
        }
    }

    /** @return array{int, string, resource} port, file of the authority's certificate, process */
    private static function httpsServer(string $folder): array
    {
        $options = ['private_key_type' => OPENSSL_KEYTYPE_EC, 'curve_name' => 'prime256v1', 'digest_alg' => 'sha256'];
        $key = openssl_pkey_new($options);
        $request = openssl_csr_new(['commonName' => 'localhost'], $key, $options);
        openssl_x509_export(openssl_csr_sign($request, null, $key, 1, $options), $certificate);
        openssl_pkey_export($key, $pem);
        file_put_contents($folder . '/authority.pem', $certificate);
        file_put_contents($folder . '/server.pem', $certificate . $pem);
        $process = proc_open(
            [PHP_BINARY, __DIR__ . '/https-endpoint.php', $folder . '/server.pem'],
            [['file', '/dev/null', 'r'], ['pipe', 'w'], ['file', '/dev/null', 'w']],
            $pipes,
        );
        $port = (int) fgets($pipes[1]);
        self::assertGreaterThan(0, $port);

        return [$port, $folder . '/authority.pem', $process];
    }

    public function test_an_archive_without_the_program_is_refused(): void
    {
        mkdir($this->folder . '/x/other', 0700, true);
        $archive = $this->folder . '/x.tar.gz';
        Binary::run(['tar', '-czf', $archive, '-C', $this->folder, 'x']);
        $release = new Release('1.2.3', 'x.tar.gz', 'https://example.com', (string) hash_file('sha256', $archive));
        $this->expectExceptionMessage('has no program bin/ringverb');
        $release->install($this->folder . '/bin/ringverb', static function (string $url, string $file) use (
            $archive,
        ): void {
            self::assertSame('https://example.com/x.tar.gz', $url);
            copy($archive, $file);
        });
    }

    public function test_the_program_is_found_below_storage_before_the_path_and_scripts_are_not_it(): void
    {
        $state = $this->folder . '/storage';
        mkdir($state . '/bin', 0700, true);
        file_put_contents($state . '/bin/ringverb', "#!/usr/bin/env php\n");
        chmod($state . '/bin/ringverb', 0755);
        $binary = new Binary(null, $state);
        self::assertNotSame($state . '/bin/ringverb', $binary->find());
        copy(TestApplication::program(), $state . '/bin/ringverb');
        self::assertSame($state . '/bin/ringverb', $binary->path());
        // The configured program is the one that reverb:start runs, and no other takes its place.
        self::assertSame(TestApplication::program(), (new Binary(TestApplication::program(), $state))->find());
        $script = $this->folder . '/script';
        file_put_contents($script, "#!/bin/sh\n");
        chmod($script, 0755);
        foreach ([$script, $this->folder, '/nowhere/ringverb'] as $other) {
            self::assertNull((new Binary($other, $state))->find(), $other);
        }
        $this->expectExceptionMessage('RINGVERB_BINARY is /nowhere/ringverb');
        (new Binary('/nowhere/ringverb', $state))->path();
    }

    public function test_lines_of_the_environment_file_are_replaced_in_place_or_added(): void
    {
        $text = "APP_NAME=x\nBROADCAST_CONNECTION=log\n# REVERB_APP_ID=1";
        self::assertSame(
            "APP_NAME=x\nBROADCAST_CONNECTION=reverb\n# REVERB_APP_ID=1\nREVERB_APP_ID=\$1\n",
            InstallCommand::withNames($text, ['BROADCAST_CONNECTION' => 'reverb', 'REVERB_APP_ID' => '$1']),
        );
        self::assertSame("A=1\n", InstallCommand::withNames('', ['A' => '1']));
        // A file of Windows keeps its line ends.
        self::assertSame(
            "A=2\r\nB=1\r\nC=3\r\n",
            InstallCommand::withNames("A=1\r\nB=1\r\n", ['A' => '2', 'C' => '3']),
        );
    }
}
