<?php

declare(strict_types=1);

use App\Events\MessagePosted;
use App\Events\OrderShipped;
use App\Models\User;
use Illuminate\Http\Request;
use Illuminate\Support\Facades\Auth;
use Illuminate\Support\Facades\Broadcast;
use Illuminate\Support\Facades\Route;

// For a development machine: anybody can sign in as anybody.
Route::middleware('web')->prefix('example')->group(function (): void {
    Route::get('/as/{name}', function (string $name) {
        Auth::login(User::firstOrCreate(['email' => "{$name}@example.com"], ['name' => $name, 'password' => 'unused']));

        return view('example');
    });
    Route::post('/ship', function (Request $request) {
        OrderShipped::dispatch(7, (string) $request->input('carrier', 'DHL'));

        return response()->noContent();
    });
    Route::post('/post', function (Request $request) {
        broadcast(new MessagePosted('1', (string) $request->input('text')))->toOthers();

        return response()->noContent();
    });
    Route::post('/headline', function () {
        Broadcast::on('news')->as('headline')->with(['text' => 'Hello'])->send();

        return response()->noContent();
    });
});
