<?php

declare(strict_types=1);

// The parts of laravel/pulse that the recorders use, for a machine without it. With the vendor folder of an application
// that has Pulse, the real classes are used instead.

namespace Laravel\Pulse\Events {
    use DateTimeInterface;

    if (!class_exists(IsolatedBeat::class)) {
        class IsolatedBeat
        {
            public function __construct(public DateTimeInterface $time) {}
        }
    }
}

namespace Laravel\Pulse {
    if (!class_exists(Entry::class)) {
        class Entry
        {
            /** @var list<string> */
            private array $aggregations = [];

            private bool $onlyBuckets = false;

            public function __construct(
                public int $timestamp,
                public string $type,
                public string $key,
                public ?int $value = null,
            ) {}

            public function __call(string $name, array $arguments): static
            {
                $this->aggregations[] = $name;

                return $this;
            }

            public function onlyBuckets(): static
            {
                $this->onlyBuckets = true;

                return $this;
            }

            public function isOnlyBuckets(): bool
            {
                return $this->onlyBuckets;
            }

            /** @return list<string> */
            public function aggregations(): array
            {
                return $this->aggregations;
            }
        }
    }

    if (!class_exists(Pulse::class)) {
        class Pulse
        {
            public function record(string $type, string $key, ?int $value = null, mixed $timestamp = null): Entry
            {
                return new Entry((int) $timestamp, $type, $key, $value);
            }
        }
    }
}
