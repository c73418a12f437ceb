//! Orphans, and signals that are held back.

use std::fs;

use super::*;
use crate::worker::unblock_signals;

#[test]
fn a_process_that_is_no_stand_in_is_no_orphan() {
    assert!(!is_orphan(i32::try_from(std::process::id()).unwrap()));
    assert!(!is_orphan(0) && !is_orphan(i32::MAX));
}

#[test]
fn signals_are_blocked_for_this_thread_and_those_that_it_starts() {
    let held = || {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap();
        u64::from_str_radix(mask.trim(), 16).unwrap()
    };
    let all = SIGNALS.iter().fold(0, |mask, signal| mask | 1 << (signal - 1));
    assert_eq!(held() & all, 0);
    block_signals(&SIGNALS).unwrap();
    assert_eq!(held() & all, all);
    assert_eq!(std::thread::spawn(held).join().unwrap() & all, all);
    unblock_signals(&SIGNALS).unwrap();
    assert_eq!(held() & all, 0);
}
