<!doctype html>
<html lang="en">
<head>
    <meta charset="utf-8">
    <meta name="csrf-token" content="{{ csrf_token() }}">
    <meta name="reverb" content='@json(['key' => config('broadcasting.connections.reverb.key'), 'port' => (int) config('broadcasting.connections.reverb.options.port')])'>
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
