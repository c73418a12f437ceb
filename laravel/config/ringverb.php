<?php

declare(strict_types=1);

return [
    // The program. Empty: storage/ringverb/bin/ringverb, then the PATH.
    'binary' => env('RINGVERB_BINARY'),

    // The folder with the configuration of running servers and their process ids. Deploys with a folder for each
    // release need a folder that all releases share, as storage usually is. Hosts must not share it if their servers
    // have the same address.
    'state' => env('RINGVERB_STATE', storage_path('ringverb')),

    'webhooks' => [
        // Set RINGVERB_WEBHOOK_URL to APP_URL and this path. null registers no route.
        'path' => env('RINGVERB_WEBHOOK_PATH', 'ringverb/webhook'),
        'middleware' => [],
        // Seconds. An older request is refused, and its events are not handled twice within this time. It must be
        // longer than RINGVERB_WEBHOOK_RETRY (300), because a retried request keeps its time.
        'window' => 600,
        // The cache store that remembers handled events; null is the default store. Several web servers need a
        // store that they share.
        'store' => null,
    ],

    // The console of the server, for users whom the gate viewRingverb allows.
    'console' => [
        // null registers no route.
        'path' => env('RINGVERB_CONSOLE_PATH', 'ringverb'),
        'middleware' => ['web'],
        // The server's admin listener and its token: those of the server, unless PHP reaches it by another address.
        'admin' => env('RINGVERB_ADMIN'),
        'token' => env('RINGVERB_ADMIN_TOKEN'),
        // An open event log takes a PHP process for so long; then the page asks again.
        'stream_seconds' => 60,
    ],
];
