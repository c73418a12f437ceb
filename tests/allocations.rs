//! The hot path allocates nothing for a delivery: the mark HOT of `shard/local/delivery.rs` and `tick/flush.rs` says
//! so.
//!
//! A program of its own, because it replaces the allocator. Only allocations of the thread of the test count.

#[path = "../bench/benches/setup/mod.rs"]
mod setup;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use ringverb::shard::Shard;

/// The system's allocator, and how often each thread has asked it for memory.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // A thread that ends has no cell any longer.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: all is done by `System`; the counter is a cell without a destructor and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the same contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the same contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the same contract.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the same contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// A core whose channel `news` has so many subscribers, after some publishes: its lists have their room.
fn core_with(subscribers: u64) -> Shard {
    let mut shard = setup::shard();
    for number in 1..=subscribers {
        let key = setup::connect(&mut shard, number);
        setup::subscribe(&mut shard, key, "news");
    }
    for _ in 0..3 {
        publish_and_flush(&mut shard);
    }
    shard
}

fn publish_and_flush(shard: &mut Shard) {
    let channel = shard.channel_key(setup::APP, "news").expect("a name");
    shard.publish(channel, vec![0; 100].into(), None, true);
    setup::flush(shard);
}

/// The allocations of one publish with all its deliveries.
fn allocations(shard: &mut Shard) -> u64 {
    let before = ALLOCATIONS.get();
    publish_and_flush(shard);
    ALLOCATIONS.get() - before
}

#[test]
fn a_publish_allocates_as_much_for_a_thousand_subscribers_as_for_one() {
    let [one, thousand] = [1, 1_000].map(|subscribers| allocations(&mut core_with(subscribers)));
    assert_eq!(one, thousand, "a delivery allocates");
    // The event's own frame and its reference counts: the counter counts.
    assert!((1..=8).contains(&one), "{one} allocations for one publish");
}
