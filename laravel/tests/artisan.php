<?php

declare(strict_types=1);

// `php artisan.php FOLDER COMMAND [OPTION...]`: the commands of the package in an application without
// laravel/framework. FOLDER has config.json, the configuration of the application.

use Ringverb\Laravel\Console\RestartCommand;
use Ringverb\Laravel\Console\StartCommand;
use Ringverb\Laravel\Tests\TestApplication;
use Symfony\Component\Console\Input\ArgvInput;
use Symfony\Component\Console\Output\ConsoleOutput;

require __DIR__ . '/bootstrap.php';

[, $folder, $name] = $argv;
$config = json_decode((string) file_get_contents($folder . '/config.json'), true, 512, JSON_THROW_ON_ERROR);
$application = new TestApplication($config, $folder);
// Laravel adds .env to the environment of PHP.
putenv('RINGVERB_WORKERS=999999');
$command = ['reverb:start' => new StartCommand(), 'reverb:restart' => new RestartCommand()][$name];
$command->setLaravel($application);
exit($command->run(new ArgvInput(array_slice($argv, 2)), new ConsoleOutput()));
