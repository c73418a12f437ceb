<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Pulse;

use Livewire\Attributes\Lazy;

/** `<livewire:reverb.connections />` */
#[Lazy]
final class ConnectionsCard extends ChartCard
{
    protected function title(): string
    {
        return 'Reverb Connections';
    }

    protected function lines(): array
    {
        return [
            'max' => ['label' => 'Peak', 'color' => '#9333ea'],
            'avg' => ['label' => 'Average', 'color' => '#10b981'],
        ];
    }

    protected function readings(): array
    {
        $readings = [];
        foreach (['max', 'avg'] as $aggregate) {
            foreach ($this->graph(['reverb_connections'], $aggregate)->toArray() as $id => $values) {
                $readings[$id][$aggregate] = $values['reverb_connections'];
            }
        }

        return $readings;
    }

    protected function isRate(): bool
    {
        return false;
    }
}
