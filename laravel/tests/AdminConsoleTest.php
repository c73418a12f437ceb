<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Tests;

use Illuminate\Config\Repository;
use Illuminate\Contracts\Auth\Access\Gate;
use Illuminate\Http\Request;
use PHPUnit\Framework\TestCase;
use Ringverb\Laravel\Admin\AdminListener;
use Ringverb\Laravel\Admin\ConsoleController;
use Ringverb\Laravel\Exceptions\AdminException;
use Symfony\Component\HttpFoundation\Response;

final class AdminConsoleTest extends TestCase
{
    private static AdminServer $server;

    public static function setUpBeforeClass(): void
    {
        self::$server = new AdminServer();
    }

    public static function tearDownAfterClass(): void
    {
        self::$server->stop();
    }

    /** @param array<string, string> $server fields as PHP has them */
    private function ask(
        string $method,
        string $target,
        array $server = [],
        string $body = '',
        bool $isAllowed = true,
        ?AdminListener $listener = null,
    ): Response {
        $gate = $this->createMock(Gate::class);
        $gate->method('allows')->with(ConsoleController::GATE)->willReturn($isAllowed);
        $listener ??= new AdminListener(self::$server->admin, AdminServer::TOKEN);
        $request = Request::create("http://app.test/ringverb/{$target}", $method, [], [], [], $server, $body);
        $target = explode('?', $target)[0];
        $answer = (new ConsoleController($listener, new Repository([])))($request, $gate, $target);
        self::assertStringNotContainsString(AdminServer::TOKEN, $answer->headers . $answer->getContent());

        return $answer;
    }

    public function test_the_page_and_its_files_are_served_below_the_path_of_the_application(): void
    {
        $page = $this->ask('GET', '');
        self::assertSame(200, $page->getStatusCode());
        self::assertStringContainsString('href="/ringverb/console.css"', (string) $page->getContent());
        self::assertStringContainsString('src="/ringverb/console.js"', (string) $page->getContent());
        self::assertStringContainsString("default-src 'none'", (string) $page->headers->get('Content-Security-Policy'));
        $files = ['console.css' => 'text/css', 'console.js' => 'javascript', 'overview.js' => 'javascript'];
        foreach ($files as $file => $type) {
            $answer = $this->ask('GET', $file);
            self::assertSame(200, $answer->getStatusCode());
            self::assertStringContainsString($type, (string) $answer->headers->get('Content-Type'));
        }
        $overview = json_decode((string) $this->ask('GET', 'api/overview')->getContent(), true);
        self::assertArrayHasKey('totals', $overview);
        self::assertSame(404, $this->ask('GET', 'api/nothing')->getStatusCode());
    }

    public function test_a_parameter_and_a_body_reach_the_server(): void
    {
        $client = self::$server->connect();
        $client->subscribe('news');
        $found = $this->ask('GET', 'api/channel?app=1001&name=news')->getContent();
        self::assertStringContainsString($client->socketId, (string) $found);
        $event = ['name' => 'headline', 'channel' => 'news', 'data' => '{"a":1}'];
        $json = ['CONTENT_TYPE' => 'application/json'];
        $published = $this->ask('POST', 'api/publish?app=1001', $json, (string) json_encode($event));
        self::assertSame(200, $published->getStatusCode(), (string) $published->getContent());
        self::assertSame(['a' => 1], $client->next('headline')['data']);
        // The server takes changes as JSON only, which a form of another page cannot send.
        $refused = $this->ask('POST', 'api/publish', ['CONTENT_TYPE' => 'text/plain'], '{}');
        self::assertSame(415, $refused->getStatusCode());
    }

    public function test_without_the_gate_nothing_is_shown(): void
    {
        foreach (['', 'console.js', 'api/overview', 'api/events'] as $target) {
            $answer = $this->ask('GET', $target, isAllowed: false);
            self::assertSame(403, $answer->getStatusCode());
            self::assertStringContainsString('viewRingverb', (string) $answer->getContent());
        }
    }

    public function test_a_page_of_another_origin_causes_no_request(): void
    {
        foreach (
            [
                [['HTTP_ORIGIN' => 'http://evil.test'], 403],
                [['HTTP_ORIGIN' => 'null'], 403],
                [['HTTP_ORIGIN' => 'http://app.test.evil.test'], 403],
                [['HTTP_ORIGIN' => 'http://app.test:81'], 403],
                [['HTTP_ORIGIN' => 'https://app.test'], 200],
                [['HTTP_SEC_FETCH_SITE' => 'cross-site'], 403],
                [['HTTP_SEC_FETCH_SITE' => 'same-site'], 403],
                [['HTTP_SEC_FETCH_SITE' => 'same-origin'], 200],
                [['HTTP_ORIGIN' => 'http://app.test'], 200],
                [[], 200],
            ]
            as [$fields, $status]
        ) {
            $found = $this->ask('GET', 'api/overview', $fields)->getStatusCode();
            self::assertSame($status, $found, (string) json_encode($fields));
        }
        // A link from another site may open the page.
        self::assertSame(200, $this->ask('GET', '', ['HTTP_SEC_FETCH_SITE' => 'cross-site'])->getStatusCode());
    }

    public function test_what_is_wrong_between_php_and_the_server_is_named(): void
    {
        foreach (
            [
                [new AdminListener(self::$server->admin, 'another-token-0123'), 'RINGVERB_ADMIN_TOKEN'],
                [new AdminListener(self::$server->admin, null), 'RINGVERB_ADMIN_TOKEN'],
                [new AdminListener('off', null), 'RINGVERB_ADMIN is off'],
                [new AdminListener('127.0.0.1:' . CommandsTest::freePort(), null), 'is the server running'],
                [new AdminListener('unix:/nowhere/admin.sock', null), 'is the server running'],
            ]
            as [$listener, $text]
        ) {
            $answer = $this->ask('GET', 'api/overview', listener: $listener);
            self::assertSame(502, $answer->getStatusCode());
            self::assertStringContainsString($text, (string) $answer->getContent());
        }
        foreach (
            [
                ['GET', "/api/overview HTTP/1.1\r\nX: y", []],
                ['GET', 'api/overview', []],
                ["GET / HTTP/1.1\r\n", '/', []],
                ['GET', '/', ['Accept' => "*\r\nX: y"]],
            ]
            as [$method, $target, $fields]
        ) {
            $refusal = null;
            try {
                (new AdminListener(self::$server->admin, null))->ask($method, $target, $fields);
            } catch (AdminException $refusal) {
            }
            self::assertStringContainsString('a character', (string) $refusal?->getMessage());
        }
    }

    public function test_the_event_log_arrives_as_it_happens_and_ends_after_its_time(): void
    {
        $listener = new AdminListener(self::$server->admin, AdminServer::TOKEN);
        $answer = $listener->ask('GET', '/api/events');
        self::assertTrue($answer->isStream());
        $socketId = null;
        $text = '';
        foreach ($answer->chunks(20) as $chunk) {
            $text .= $chunk;
            $socketId ??= self::$server->connect()->socketId;
            if (str_contains($text, $socketId)) {
                break;
            }
        }
        self::assertStringContainsString((string) $socketId, $text);
        foreach ($listener->ask('GET', '/api/events')->chunks(0.05) as $chunk) {
        }
        $stream = $this->ask('GET', 'api/events');
        self::assertSame('no', $stream->headers->get('X-Accel-Buffering'));
        self::assertStringStartsWith('text/event-stream', (string) $stream->headers->get('Content-Type'));
    }

    public function test_a_socket_file_is_an_address_too(): void
    {
        $server = new AdminServer(isSocketFile: true);
        try {
            $listener = new AdminListener($server->admin, AdminServer::TOKEN);
            self::assertSame(200, $this->ask('GET', 'api/overview', listener: $listener)->getStatusCode());
        } finally {
            $server->stop();
        }
    }
}
