//! Runs one case so many times, to be counted from outside: `instructions NAME COUNT`. Prints how often memory was
//! allocated. Without arguments it lists the cases and what one run of each does.

mod micro;
mod setup;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

/// The system's allocator, and how often it was asked for memory.
struct Counting(AtomicU64);

#[global_allocator]
static ALLOCATOR: Counting = Counting(AtomicU64::new(0));

impl Counting {
    /// One thread allocates, so no atomic addition is needed, which would be slower.
    fn count(&self) {
        self.0.store(self.0.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }
}

// SAFETY: all is done by `System`; the counter allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.count();
        // SAFETY: the caller keeps the same contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.count();
        // SAFETY: the caller keeps the same contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        self.count();
        // SAFETY: the caller keeps the same contract.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the same contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let [name, count] = words.as_slice() else {
        for case in micro::CASES {
            println!("{} {}", case.name, case.items);
        }
        return;
    };
    let case = micro::CASES.iter().find(|case| case.name == name).expect("a case of the list");
    let count: u32 = count.parse().expect("a number of runs");
    let mut run = (case.set_up)();
    for _ in 0..count {
        run();
    }
    println!("{}", ALLOCATOR.0.load(Ordering::Relaxed));
}
