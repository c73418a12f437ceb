<?php

declare(strict_types=1);

// The package's classes beside Laravel: the vendor folder of this package, or of an application
// (RINGVERB_TEST_AUTOLOAD), or the Illuminate components of Debian. Those are version 8, whose deprecations under
// PHP 8.2 are not of interest.

error_reporting(E_ALL & ~E_DEPRECATED);

$autoload = getenv('RINGVERB_TEST_AUTOLOAD') ?: __DIR__ . '/../vendor/autoload.php';
if (is_file($autoload)) {
    require $autoload;
} else {
    foreach (
        ['Broadcasting', 'Cache', 'Config', 'Console', 'Container', 'Events', 'Http', 'Routing', 'Support']
        as $component
    ) {
        require_once "Illuminate/{$component}/autoload.php";
    }
}
spl_autoload_register(static function (string $class): void {
    foreach (
        ['Ringverb\\Laravel\\Tests\\' => __DIR__, 'Ringverb\\Laravel\\' => __DIR__ . '/../src']
        as $prefix => $folder
    ) {
        $file = $folder . '/' . str_replace('\\', '/', substr($class, strlen($prefix))) . '.php';
        if (str_starts_with($class, $prefix) && is_file($file)) {
            require $file;

            return;
        }
    }
});
