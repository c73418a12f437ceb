<?php

declare(strict_types=1);

namespace Tests\Feature;

use App\Events\MessagePosted;
use App\Events\OrderShipped;
use App\Models\User;
use Illuminate\Foundation\Testing\RefreshDatabase;
use Ringverb\Laravel\Ringverb;
use Tests\TestCase;

final class BroadcastTest extends TestCase
{
    use RefreshDatabase;

    private function ann(): User
    {
        return User::create(['name' => 'Ann', 'email' => 'ann@example.com', 'password' => 'unused']);
    }

    public function test_what_is_broadcast(): void
    {
        $broadcasts = Ringverb::fake();
        $this->post('/example/ship', ['carrier' => 'DHL'])->assertNoContent();
        $this->withHeader('X-Socket-ID', '1.2')->post('/example/post', ['text' => 'Hi'])->assertNoContent();
        $broadcasts
            ->assertBroadcastOn('private-orders.7', 'order.shipped', ['order' => 7, 'carrier' => 'DHL'])
            ->assertBroadcastToOthers(MessagePosted::class, '1.2')
            ->assertNotBroadcast(OrderShipped::class);
    }

    public function test_who_may_subscribe(): void
    {
        Ringverb::fake();
        $ask = fn (string $channel) => $this->post('/broadcasting/auth', [
            'channel_name' => $channel,
            'socket_id' => '1.2',
        ]);
        $ask('private-orders.7')->assertForbidden();
        $this->actingAs($this->ann());
        $ask('private-orders.7')->assertOk();
        $ask('private-orders.8')->assertForbidden();
        $ask('presence-room.1')->assertOk()
            ->assertJsonPath('channel_data', fn (string $data) => str_contains($data, 'Ann'));
    }

    public function test_an_event_reaches_the_others_in_the_real_server(): void
    {
        $server = Ringverb::server();
        $this->actingAs($this->ann());
        [$sender, $other] = [$server->connect(), $server->connect()];
        foreach ([$sender, $other] as $client) {
            $auth = $this->post('/broadcasting/auth', [
                'channel_name' => 'presence-room.1',
                'socket_id' => $client->socketId,
            ])->assertOk()->json();
            $client->subscribe('presence-room.1', null, $auth);
        }
        $this->withHeader('X-Socket-ID', $sender->socketId)->post('/example/post', ['text' => 'Hi'])->assertNoContent();
        $other->assertReceived('presence-room.1', MessagePosted::class, ['room' => '1', 'text' => 'Hi']);
        $sender->assertNotReceived(MessagePosted::class);
    }
}
