//! Queues of a core whose entries outlive what they name: they have a bound, and their gauges a peak.

use super::*;
use crate::limits::stale_entries_max;

/// A flood of connections that the server closes must not leave a deadline for each.
#[test]
fn deadlines_of_ended_connections_are_swept_and_are_gauges_with_peaks() {
    const CONNECTIONS: usize = 1_000;
    let mut app = sample();
    app.authorize_within_seconds = Some(60);
    assert!((0..CONNECTIONS).all(|_| app.try_count_connection()));
    let mut core = core_of(app, |_| Sent::Whole);
    let stays = open(&mut core);
    let metrics = core.shard.metrics().clone();
    let read = |core: &Core<Scripted>| {
        core.note_gauges();
        [&metrics.deadlines, &metrics.authorizations_awaited, &metrics.closing_connections]
            .map(|gauge| (gauge.get(), gauge.peak()))
    };
    tick(&mut core);
    assert_eq!(read(&core), [(1, 1), (1, 1), (0, 0)]);
    for _ in 0..CONNECTIONS {
        let key = open(&mut core);
        core.shard.close_frame(key.slot, 4_100, "");
        tick(&mut core);
        core.reactor.drop_socket(&mut core.shard, key);
        let most = stale_entries_max(2) as u64 + 1;
        assert!(read(&core).iter().all(|(now, _)| *now <= most), "{:?}", read(&core));
    }
    let [deadlines, awaited, closing] = read(&core);
    assert!(deadlines.0 > 1 && awaited.0 > 1 && closing.0 > 1, "those that ended last");
    assert_eq!(core.check_invariants(), Ok(()), "the one that stays has its deadlines");
    core.shard.advance(crate::clock::Moment(4_000));
    tick(&mut core);
    let after = read(&core)[2];
    assert_eq!(after.0, 0, "the time of a close is over");
    assert!(after.1 >= closing.0 && core.shard.get(stays).is_some(), "the peak stays");
}

#[test]
fn cached_events_over_their_bytes_are_evicted_counted_and_a_gauge_with_a_peak() {
    let mut core = core_of(sample(), |_| Sent::Whole);
    let metrics = core.shard.metrics().clone();
    for number in 0..20 {
        let channel = core.shard.channel_key(AppIndex(0), &format!("cache-{number}")).unwrap();
        let frame = FrameBytes::from(vec![b'x'; 100 << 10]);
        core.shard.publish(channel, frame, None, true);
        tick(&mut core);
        core.note_gauges();
    }
    // A core of the tests has 1 MiB.
    let bytes = metrics.cached_bytes.get();
    assert!((900 << 10..=1 << 20).contains(&bytes), "{bytes}");
    assert_eq!(metrics.cached_events_evicted.get(), 10);
    core.shard.advance(crate::clock::Moment(3_600_000));
    tick(&mut core);
    core.note_gauges();
    assert_eq!((metrics.cached_bytes.get(), metrics.cached_bytes.peak()), (0, bytes));
    assert_eq!(metrics.cached_events_evicted.get(), 10, "those that are too old are not evicted");
}
