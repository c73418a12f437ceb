<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Health;

use Illuminate\Container\Container;
use Spatie\Health\Checks\Check;
use Spatie\Health\Checks\Result;

/** For spatie/laravel-health, and loaded only where that is installed: `Health::checks([RingverbCheck::new()])`. */
final class RingverbCheck extends Check
{
    public function run(): Result
    {
        $probe = Container::getInstance()->make(ServerProbe::class);
        $problem = $probe->problem();
        $result = Result::make();

        return $problem === null
            ? $result->ok()->shortSummary(($probe->connections() ?? 0) . ' connections')
            : $result->failed($problem);
    }
}
