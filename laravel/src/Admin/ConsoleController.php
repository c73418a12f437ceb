<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Admin;

use Illuminate\Contracts\Auth\Access\Gate;
use Illuminate\Contracts\Config\Repository;
use Illuminate\Http\Request;
use Illuminate\Http\Response;
use Ringverb\Laravel\Exceptions\AdminException;
use Symfony\Component\HttpFoundation\Response as AnyResponse;
use Symfony\Component\HttpFoundation\StreamedResponse;

/**
 * The console of the server as a page of the application: its files, its API and its event log, for users whom the gate
 * `viewRingverb` allows. The token stays here. A stream takes a PHP process for `ringverb.console.stream_seconds`; then
 * the page opens the next one.
 */
final class ConsoleController
{
    public const GATE = 'viewRingverb';

    /** Fields of an answer that the browser gets. */
    private const FIELDS = [
        'content-type',
        'content-security-policy',
        'cache-control',
        'x-content-type-options',
        'referrer-policy',
        'cross-origin-resource-policy',
        'allow',
    ];

    public function __construct(private readonly AdminListener $listener, private readonly Repository $config) {}

    public function __invoke(Request $request, Gate $gate, string $target = ''): AnyResponse
    {
        if (!$gate->allows(self::GATE)) {
            return self::text(
                403,
                'The gate ' . self::GATE . ' does not allow this user to see the console. Without Gate::define, ' .
                    'it allows only the environment local.',
            );
        }
        $refusal = self::foreign($request, $target) ?? $this->withoutWorkers($target);
        if ($refusal !== null) {
            return $refusal;
        }
        try {
            $answer = $this->listener->ask(
                $request->getMethod(),
                '/' . $target . self::query($request),
                array_filter([
                    'Accept' => $target === '' ? 'text/html' : 'application/json, */*',
                    'Content-Type' => (string) $request->headers->get('Content-Type', ''),
                ]),
                in_array($request->getMethod(), ['GET', 'HEAD'], true) ? '' : (string) $request->getContent(),
            );
            if ($answer->status === 401) {
                return self::text(
                    502,
                    'The server refuses the token of RINGVERB_ADMIN_TOKEN that PHP has: php artisan config:clear, ' .
                        'and php artisan reverb:restart after a change of .env.',
                );
            }

            return $answer->isStream() ? $this->stream($answer) : self::whole($answer, $request, $target);
        } catch (AdminException $exception) {
            return self::text(502, $exception->getMessage());
        }
    }

    /** The page names its files from the root; the script finds the API beside itself. */
    private static function whole(AdminAnswer $answer, Request $request, string $target): Response
    {
        $body = $answer->body();
        if ($target === '') {
            $folder = rtrim($request->getBaseUrl() . $request->getPathInfo(), '/');
            $body = (string) preg_replace('/\b(href|src)="\/(?=[a-z])/', "$1=\"{$folder}/", $body);
        }

        return new Response($body, $answer->status, self::fields($answer));
    }

    private function stream(AdminAnswer $answer): StreamedResponse
    {
        $seconds = max(5, (int) $this->config->get('ringverb.console.stream_seconds', 60));

        return new StreamedResponse(
            static function () use ($answer, $seconds): void {
                foreach ($answer->chunks($seconds) as $chunk) {
                    echo $chunk;
                    if (ob_get_level() > 0) {
                        ob_flush();
                    }
                    flush();
                    if (connection_aborted() !== 0) {
                        return;
                    }
                }
            },
            200,
            // nginx must not wait for more.
            self::fields($answer) + ['X-Accel-Buffering' => 'no'],
        );
    }

    /**
     * A page of another site must not cause requests. The CSRF token of the group `web` is the first barrier for
     * changes; this one also stays without that group. The scheme may be that of a proxy that Laravel does not trust.
     */
    private static function foreign(Request $request, string $target): ?Response
    {
        $origin = $request->headers->get('Origin');
        $site = (string) $request->headers->get('Sec-Fetch-Site', 'none');
        $isOwn = $origin === null
            ? !str_starts_with($target, 'api/') || in_array($site, ['same-origin', 'none'], true)
            : preg_replace('/^https?:\/\//', '', $origin) === $request->getHttpHost();

        return $isOwn ? null : self::text(403, 'The request comes from a page of another origin.');
    }

    /** PHP's own web server answers one request at a time, and an event log would be that one. */
    private function withoutWorkers(string $target): ?Response
    {
        if ($target !== 'api/events' || PHP_SAPI !== 'cli-server' || (int) getenv('PHP_CLI_SERVER_WORKERS') > 1) {
            return null;
        }

        return self::text(
            503,
            'The event log keeps a PHP process busy, and this web server has one: PHP_CLI_SERVER_WORKERS=4 php ' .
                'artisan serve --no-reload.',
        );
    }

    private static function query(Request $request): string
    {
        $query = (string) $request->server->get('QUERY_STRING', '');

        return $query === '' ? '' : '?' . $query;
    }

    /** @return array<string, string> */
    private static function fields(AdminAnswer $answer): array
    {
        return array_intersect_key($answer->fields, array_flip(self::FIELDS));
    }

    private static function text(int $status, string $text): Response
    {
        return new Response($text . "\n", $status, [
            'Content-Type' => 'text/plain; charset=utf-8',
            'Cache-Control' => 'no-store',
        ]);
    }
}
