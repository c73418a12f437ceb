<p id="status">{{ $carrier === '' ? 'waiting' : "shipped by {$carrier}" }}</p>
