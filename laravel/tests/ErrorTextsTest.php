<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Tests;

use FilesystemIterator;
use PHPUnit\Framework\TestCase;
use RecursiveDirectoryIterator;
use RecursiveIteratorIterator;

/** docs/laravel-errors.md: each text is one of the server or of this package, or is known to be of another program. */
final class ErrorTextsTest extends TestCase
{
    /** Texts of Laravel, pusher-php-server, cURL, PHP and pusher-js, with the versions that docs/laravel.md names. */
    private const OF_OTHERS = [
        'cURL error',
        'Failed to connect to localhost port',
        'wrong version number',
        'SSL certificate problem',
        'Pusher\PusherException: Invalid socket ID undefined',
        'Pusher\Pusher::__construct(): Argument #1 ($auth_key) must be of type string, null given',
        'Call to a member function encrypt_payload() on null',
        'You must specify an encryption master key to authorize an encrypted channel',
        'Failed to decrypt event with new key. Dropping encrypted event',
        'Tried to subscribe to a private-encrypted- channel but no nacl implementation available',
        'received status: 404 from /broadcasting/user-auth',
        'certificate verify failed',
    ];

    /** The sources as one text: string literals that go on in the next line are joined. */
    private static function sources(string $folder, string $ending): string
    {
        $text = '';
        $files = new RecursiveIteratorIterator(
            new RecursiveDirectoryIterator($folder, FilesystemIterator::SKIP_DOTS),
        );
        foreach ($files as $file) {
            if ($file->getExtension() === $ending) {
                $text .= file_get_contents($file->getPathname());
            }
        }

        $joins = ['/\\\\\n\s*/', '/[\'"] \.\n\s*[\'"]/', '/\s+/'];

        return stripslashes((string) preg_replace($joins, ['', '', ' '], $text));
    }

    public function test_each_text_of_the_page_exists(): void
    {
        $page = (string) file_get_contents(__DIR__ . '/../../docs/laravel-errors.md');
        $page = explode('## Nothing happens', $page)[0];
        $sources = self::sources(__DIR__ . '/../../src', 'rs') . self::sources(__DIR__ . '/../src', 'php');
        preg_match_all('/^\| (.+?) \| .+ \|$/m', $page, $rows);
        self::assertGreaterThan(30, count($rows[1]));
        $missing = [];
        foreach ($rows[1] as $cell) {
            preg_match_all('/`([^`]+)`/', $cell, $spans);
            foreach ($spans[1] as $span) {
                $missing = [...$missing, ...array_filter(
                    self::pieces($span),
                    static fn(string $piece): bool => stripos($sources, $piece) === false && !self::isOfOthers($piece),
                )];
            }
        }
        self::assertSame([], $missing);
    }

    /** The parts between values: a name in quotes or brackets, a number, `...`. @return list<string> */
    private static function pieces(string $span): array
    {
        $parts = preg_split('/\.\.\.|\. |"[^"]*"|\[[^\]]*\]|\b\d+\b|[{}]|viewRingverb/', $span) ?: [];
        $parts = array_map(static fn(string $part): string => trim($part, " ,:;.()'"), $parts);

        return array_values(array_filter($parts, static fn(string $part): bool => strlen($part) > 5));
    }

    private static function isOfOthers(string $piece): bool
    {
        foreach (self::OF_OTHERS as $text) {
            if (str_contains($text, $piece) || str_contains($piece, $text)) {
                return true;
            }
        }

        return false;
    }
}
