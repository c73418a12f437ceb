<?php

declare(strict_types=1);

namespace App\Livewire;

use Illuminate\Contracts\View\View;
use Livewire\Component;

/** Shows the carrier as soon as the event arrives. Needs window.Echo in the page. */
final class OrderStatus extends Component
{
    public int $orderId;

    public string $carrier = '';

    /** @return array<string, string> */
    public function getListeners(): array
    {
        return ["echo-private:orders.{$this->orderId},.order.shipped" => 'shipped'];
    }

    /** @param array{order: int, carrier: string} $event */
    public function shipped(array $event): void
    {
        $this->carrier = $event['carrier'];
    }

    public function render(): View
    {
        return view('livewire.order-status');
    }
}
