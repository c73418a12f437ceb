<?php

declare(strict_types=1);

// An https server for a test: the file that the argument names has its certificate and key. It prints its port, and
// answers `/archive`.

$context = stream_context_create(['ssl' => ['local_cert' => $argv[1]]]);
$flags = STREAM_SERVER_BIND | STREAM_SERVER_LISTEN;
$server = stream_socket_server('ssl://127.0.0.1:0', $number, $reason, $flags, $context);
echo explode(':', stream_socket_get_name($server, false))[1], "\n";
while (true) {
    // A client that refuses the certificate ends the handshake.
    $client = @stream_socket_accept($server, 60);
    if ($client === false) {
        continue;
    }
    $line = (string) fgets($client);
    while (!in_array(fgets($client), ["\r\n", false], true)) {
    }
    [$status, $body] = str_starts_with($line, 'GET /archive ') ? ['200 OK', 'the archive'] : ['404 Not Found', ''];
    fwrite($client, "HTTP/1.1 {$status}\r\nContent-Length: " . strlen($body) . "\r\nConnection: close\r\n\r\n{$body}");
    fclose($client);
}
