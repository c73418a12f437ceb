<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Admin;

use Ringverb\Laravel\Exceptions\AdminException;

/**
 * The admin listener of the server (RINGVERB_ADMIN): a TCP address or a socket file. Each request has a connection of
 * its own, because the listener keeps none, and carries the token, which therefore never leaves PHP.
 */
final class AdminListener
{
    private const CONNECT_SECONDS = 3;

    /** The server's own limit for an answer. */
    private const ANSWER_SECONDS = 10;

    private const HEAD_BYTES_MAX = 16_384;

    public function __construct(private readonly string $address, private readonly ?string $token) {}

    /**
     * @param  array<string, string>  $fields
     *
     * @throws AdminException
     */
    public function ask(string $method, string $target, array $fields = [], string $body = ''): AdminAnswer
    {
        $fields += ['Host' => $this->isSocketFile() ? 'localhost' : $this->place(), 'Connection' => 'close'];
        if ($this->token !== null && $this->token !== '') {
            $fields['Authorization'] = "Bearer {$this->token}";
        }
        if ($body !== '' || $method === 'POST') {
            $fields['Content-Length'] = (string) strlen($body);
        }
        $head = self::head($method, $target, $fields);
        $socket = $this->connect();
        stream_set_timeout($socket, self::ANSWER_SECONDS);
        if (@fwrite($socket, "{$head}\r\n{$body}") !== strlen($head) + 2 + strlen($body)) {
            throw new AdminException("The admin listener at {$this->address} closed the connection.");
        }
        $text = '';
        while (($end = strpos($text, "\r\n\r\n")) === false) {
            $chunk = @fread($socket, 8192);
            if ($chunk === false || $chunk === '' || strlen($text) > self::HEAD_BYTES_MAX) {
                throw new AdminException("What listens at {$this->address} does not answer as an admin listener does.");
            }
            $text .= $chunk;
        }

        return new AdminAnswer($socket, substr($text, 0, $end), substr($text, $end + 4), $method === 'HEAD');
    }

    /**
     * A part of the visitor's request must not make lines of this one.
     *
     * @param  array<string, string>  $fields
     */
    private static function head(string $method, string $target, array $fields): string
    {
        $isPlain = preg_match('/^[A-Z]+$/D', $method) === 1 && preg_match('/^\/[\x21-\x7e]*$/D', $target) === 1;
        $head = "{$method} {$target} HTTP/1.1\r\n";
        foreach ($fields as $name => $value) {
            $isPlain = $isPlain && preg_match('/^[\x20-\x7e]*$/D', $value) === 1;
            $head .= "{$name}: {$value}\r\n";
        }
        if (!$isPlain) {
            throw new AdminException('The request has a character that a request to the admin listener cannot have.');
        }

        return $head;
    }

    private function isSocketFile(): bool
    {
        return str_starts_with($this->address, 'unix:');
    }

    /** An address that listens on all interfaces is reached on the loopback. */
    private function place(): string
    {
        return preg_replace(['/^(0\.0\.0\.0|\*)?:/', '/^\[::\]:/'], ['127.0.0.1:', '[::1]:'], $this->address, 1);
    }

    /** @return resource */
    private function connect()
    {
        if ($this->address === '' || $this->address === 'off') {
            throw new AdminException('The server has no admin listener: RINGVERB_ADMIN is off.');
        }
        $url = $this->isSocketFile() ? 'unix://' . substr($this->address, 5) : 'tcp://' . $this->place();
        $socket = @stream_socket_client($url, $number, $reason, self::CONNECT_SECONDS);
        if ($socket === false) {
            throw new AdminException(
                "No admin listener answers at {$this->address} ({$reason}): is the server running, and is " .
                    'RINGVERB_ADMIN the same for the server and for PHP? For a socket file, PHP needs the rights of ' .
                    'its owner.',
            );
        }

        return $socket;
    }
}
