<?php

declare(strict_types=1);

// For `php -S`: the webhook route of an application without laravel/framework. Events go to the file of WEBHOOK_LOG.

use Illuminate\Cache\ArrayStore;
use Illuminate\Cache\Repository;
use Illuminate\Events\Dispatcher;
use Illuminate\Http\Request;
use Ringverb\Laravel\Configuration;
use Ringverb\Laravel\Events\WebhookEvent;
use Ringverb\Laravel\Tests\TestApplication;
use Ringverb\Laravel\Webhooks\WebhookController;
use Ringverb\Laravel\Webhooks\WebhookVerifier;

require __DIR__ . '/bootstrap.php';

$application = new TestApplication(TestApplication::config(), '/nowhere');
$events = new Dispatcher($application);
$events->listen('*', static function (string $name, array $payload): void {
    $event = $payload[0];
    assert($event instanceof WebhookEvent);
    $line = json_encode([$event::class, get_object_vars($event)], JSON_THROW_ON_ERROR) . "\n";
    file_put_contents((string) getenv('WEBHOOK_LOG'), $line, FILE_APPEND | LOCK_EX);
});
$verifier = new WebhookVerifier(
    $application->make(Configuration::class),
    new Repository(new ArrayStore()),
    600,
    static fn(): float => microtime(true),
);
(new WebhookController())(Request::capture(), $verifier, $events)->send();
