import Echo from 'laravel-echo';
import Pusher from 'pusher-js';

const meta = (name) => document.querySelector(`meta[name=${name}]`).content;
const { key, port } = JSON.parse(meta('reverb'));

window.Pusher = Pusher;
window.Echo = new Echo({
    broadcaster: 'reverb',
    key,
    wsHost: location.hostname,
    wsPort: port,
    forceTLS: false,
    enabledTransports: ['ws', 'wss'],
    csrfToken: meta('csrf-token'),
});

window.log = [];
const note = (...entry) => {
    window.log.push(entry);
    const pre = document.getElementById('log');
    if (pre) pre.textContent += JSON.stringify(entry) + '\n';
};

window.Echo.connector.pusher.connection.bind('state_change', ({ current }) => note('state', current));
window.Echo.channel('news').listen('.headline', (event) => note('news', event));
window.Echo.private('orders.7').listen('.order.shipped', (event) => note('order', event));
window.Echo.private('orders.8')
    .error((error) => note('refused', error.status))
    .listen('.order.shipped', (event) => note('wrong order', event));
window.room = window.Echo.join('room.1')
    .here((users) => note('here', users.map((user) => user.name).sort()))
    .joining((user) => note('joining', user.name))
    .leaving((user) => note('leaving', user.name))
    .listen('MessagePosted', (event) => note('message', event.text))
    .listenForWhisper('typing', (event) => note('typing', event.name));
// Without the dot Echo adds App\Events, so this never runs: broadcastAs() has given the event another name.
window.Echo.private('orders.7').listen('order.shipped', (event) => note('never', event));
