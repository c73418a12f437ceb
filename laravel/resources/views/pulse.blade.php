<x-pulse::card :cols="$cols" :rows="$rows" :class="$class">
    <x-pulse::card-header
        :name="$title"
        :title="'Time: '.number_format($time).'ms; Run at: '.$runAt"
        :details="'past '.$this->periodForHumans()"
    >
        <x-slot:icon><x-pulse::icons.arrows-left-right /></x-slot:icon>
        <x-slot:actions>
            <div class="flex flex-wrap gap-4">
                @foreach ($lines as $line)
                    <div class="flex items-center gap-2 text-xs text-gray-600 dark:text-gray-400 font-medium">
                        <div class="h-0.5 w-3 rounded-full" style="background-color: {{ $line['color'] }}"></div>
                        {{ $line['label'] }}
                    </div>
                @endforeach
            </div>
        </x-slot:actions>
    </x-pulse::card-header>

    <x-pulse::scroll :expand="$expand" wire:poll.5s="">
        @if ($apps === [])
            <x-pulse::no-results />
        @else
            <div class="grid gap-3 mx-px mb-px">
                @foreach ($apps as $id => $readings)
                    <div wire:key="{{ $updated }}-{{ $id }}">
                        <div class="flex items-center justify-between">
                            <h3 class="font-bold text-gray-700 dark:text-gray-300">{{ $id }}</h3>
                            <span class="text-xs font-medium text-gray-600 dark:text-gray-400">
                                at most {{ number_format(max(0, ...array_map(
                                    fn ($values) => max(0, ...array_values($values)),
                                    array_values($readings),
                                ))) }}
                            </span>
                        </div>
                        <div
                            wire:ignore
                            class="h-14 mt-3"
                            x-data="ringverbChart(@js([
                                'id' => (string) $id,
                                'lines' => $lines,
                                'readings' => $readings,
                                'updated' => $updated,
                                'seconds' => $seconds,
                            ]))"
                        >
                            <canvas
                                x-ref="canvas"
                                class="ring-1 ring-gray-900/5 dark:ring-gray-100/10 bg-gray-50 dark:bg-gray-800
                                    rounded-md shadow-sm"
                            ></canvas>
                        </div>
                    </div>
                @endforeach
            </div>
        @endif
    </x-pulse::scroll>
</x-pulse::card>

@script
<script>
Alpine.data('ringverbChart', ({ id, lines, readings, updated, seconds }) => ({
    init() {
        const names = Object.keys(lines)
        const times = (all) => Object.keys(all[names[0]])
        const values = (all, name) => Object.values(all[name]).map((value) => value === null ? null : Number(value))
        // Alpine must not make a proxy of the chart.
        let chart = new Chart(this.$refs.canvas, {
            type: 'line',
            data: {
                labels: times(readings),
                datasets: names.map((name) => ({
                    label: lines[name].label,
                    borderColor: lines[name].color,
                    data: values(readings, name),
                })),
            },
            options: {
                animation: false,
                maintainAspectRatio: false,
                layout: { autoPadding: false, padding: { top: 1 } },
                datasets: { line: { borderWidth: 2, pointHitRadius: 10, pointStyle: false, tension: 0.2 } },
                scales: { x: { display: false }, y: { display: false, beginAtZero: true } },
                plugins: {
                    legend: { display: false },
                    tooltip: {
                        mode: 'index',
                        intersect: false,
                        callbacks: {
                            label: (point) => point.dataset.label + ': ' + point.formattedValue
                                + (seconds ? ` (${(point.raw / seconds).toPrecision(3)} per second)` : ''),
                        },
                    },
                },
            },
        })
        const stop = Livewire.on(updated, ({ apps }) => {
            if (!chart) return
            if (!apps[id]) {
                chart.destroy()
                chart = null
                return
            }
            chart.data.labels = times(apps[id])
            names.forEach((name, index) => { chart.data.datasets[index].data = values(apps[id], name) })
            chart.update()
        })
        this.stop = () => { stop(); chart?.destroy(); chart = null }
    },
    destroy() { this.stop() },
}))
</script>
@endscript
