<!doctype html>
<html lang="en">
<head>
    <meta charset="utf-8">
    <meta name="csrf-token" content="{{ csrf_token() }}">
    @php($reverb = config('broadcasting.connections.reverb'))
    <meta name="reverb" content='@json(['key' => $reverb['key'], 'port' => (int) $reverb['options']['port']])'>
    <title>ringverb</title>
    <script src="/example.js"></script>
    @livewireStyles
</head>
<body>
    @livewire('order-status', ['orderId' => 7])
    <pre id="log"></pre>
    @livewireScripts
</body>
</html>
