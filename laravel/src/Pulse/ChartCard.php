<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Pulse;

use Illuminate\Contracts\Support\Renderable;
use Illuminate\Support\Facades\Request;
use Illuminate\Support\Facades\View;
use Laravel\Pulse\Livewire\Card;

/** A card of Pulse with one chart for each app. */
abstract class ChartCard extends Card
{
    public function render(): Renderable
    {
        [$apps, $time, $runAt] = $this->remember(fn(): array => $this->readings());
        if (Request::hasHeader('X-Livewire')) {
            $this->dispatch($this->updated(), apps: $apps);
        }

        return View::make('ringverb::pulse', [
            'title' => $this->title(),
            'lines' => $this->lines(),
            'updated' => $this->updated(),
            // Messages have a rate; a number of connections has none.
            'seconds' => $this->isRate() ? $this->periodAsInterval()->totalSeconds / 60 : null,
            'apps' => $apps,
            'time' => $time,
            'runAt' => $runAt,
        ]);
    }

    abstract protected function title(): string;

    /** @return array<string, array{label: string, color: string}> by the name of a reading */
    abstract protected function lines(): array;

    /** @return array<string, array<string, array<string, int|float|null>>> by app id, name of the reading, and time */
    abstract protected function readings(): array;

    abstract protected function isRate(): bool;

    private function updated(): string
    {
        return 'ringverb-' . strtolower(class_basename(static::class));
    }
}
