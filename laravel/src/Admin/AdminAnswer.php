<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Admin;

use Generator;
use Ringverb\Laravel\Exceptions\AdminException;

/** An answer of the admin listener: the head has arrived, the body is read on demand. */
final class AdminAnswer
{
    private const BODY_BYTES_MAX = 16 * 1024 * 1024;

    private const COMMENT_SECONDS = 2.0;

    public readonly int $status;

    /** @var array<string, string> by name in small letters */
    public readonly array $fields;

    /** @param resource $socket */
    public function __construct(
        private $socket,
        string $head,
        private readonly string $begin,
        private readonly bool $isHead,
    ) {
        $lines = explode("\r\n", $head);
        if (preg_match('/^HTTP\/1\.1 (\d{3})/', $lines[0], $match) !== 1) {
            throw new AdminException('The admin listener answered with something other than HTTP.');
        }
        $this->status = (int) $match[1];
        $fields = [];
        foreach (array_slice($lines, 1) as $line) {
            [$name, $value] = explode(':', $line, 2) + [1 => ''];
            $fields[strtolower($name)] = trim($value);
        }
        $this->fields = $fields;
    }

    public function isStream(): bool
    {
        return str_starts_with($this->fields['content-type'] ?? '', 'text/event-stream');
    }

    /** @throws AdminException */
    public function body(): string
    {
        if ($this->isHead) {
            return '';
        }
        $length = (int) ($this->fields['content-length'] ?? self::BODY_BYTES_MAX);
        if ($length > self::BODY_BYTES_MAX) {
            throw new AdminException("An answer of the admin listener has {$length} bytes, which is too much.");
        }
        $body = $this->begin;
        while (strlen($body) < $length && !feof($this->socket)) {
            $chunk = @fread($this->socket, $length - strlen($body));
            if ($chunk === false || $chunk === '') {
                break;
            }
            $body .= $chunk;
        }
        if (isset($this->fields['content-length']) && strlen($body) !== $length) {
            throw new AdminException('The admin listener closed the connection within an answer.');
        }

        return $body;
    }

    /**
     * A stream as it arrives, until it or the time ends. PHP notices a closed browser only when it writes, so this
     * yields a comment when the server sends nothing for a while.
     *
     * @return Generator<int, string>
     */
    public function chunks(float $seconds): Generator
    {
        $deadline = microtime(true) + $seconds;
        $chunk = $this->begin;
        $isAtLineStart = true;
        while (true) {
            if ($chunk !== '') {
                $isAtLineStart = str_ends_with($chunk, "\n");
                yield $chunk;
            } elseif ($isAtLineStart) {
                yield ":\n";
            }
            $left = min(self::COMMENT_SECONDS, $deadline - microtime(true));
            if ($left <= 0 || feof($this->socket)) {
                return;
            }
            stream_set_timeout($this->socket, (int) $left, (int) (fmod($left, 1) * 1_000_000));
            $chunk = (string) @fread($this->socket, 65_536);
        }
    }
}
