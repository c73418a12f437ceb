<?php

declare(strict_types=1);

// The parts of spatie/laravel-health that the check uses, for a machine without it. With the vendor folder of an
// application that has it, the real classes are used instead.

namespace Spatie\Health\Checks {
    if (!class_exists(Result::class)) {
        final class Result
        {
            public string $status = '';

            public string $shortSummary = '';

            public string $notificationMessage = '';

            public static function make(): self
            {
                return new self();
            }

            public function ok(string $message = ''): self
            {
                [$this->status, $this->notificationMessage] = ['ok', $message];

                return $this;
            }

            public function failed(string $message = ''): self
            {
                [$this->status, $this->notificationMessage] = ['failed', $message];

                return $this;
            }

            public function shortSummary(string $text): self
            {
                $this->shortSummary = $text;

                return $this;
            }
        }

        abstract class Check
        {
            public static function new(): static
            {
                return new static();
            }

            abstract public function run(): Result;
        }
    }
}
