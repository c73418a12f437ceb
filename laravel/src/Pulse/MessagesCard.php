<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Pulse;

use Livewire\Attributes\Lazy;

/** `<livewire:reverb.messages />` */
#[Lazy]
final class MessagesCard extends ChartCard
{
    protected function title(): string
    {
        return 'Reverb Messages';
    }

    protected function lines(): array
    {
        return [
            'sent' => ['label' => 'Sent', 'color' => '#9333ea'],
            'received' => ['label' => 'Received', 'color' => '#10b981'],
        ];
    }

    protected function readings(): array
    {
        return $this->graph(['reverb_message:sent', 'reverb_message:received'], 'sum')
            ->map(
                static fn($values): array => [
                    'sent' => $values['reverb_message:sent']->all(),
                    'received' => $values['reverb_message:received']->all(),
                ],
            )
            ->all();
    }

    protected function isRate(): bool
    {
        return true;
    }
}
