//! io_uring as container engines refuse it: one system call or all, by a seccomp filter on the calling thread only.

use std::sync::mpsc;
use std::time::Duration;

use ringverb::config::Io;
use ringverb::kernel::{Choice, RingSize, choose};

/// Makes these system calls fail with this error in the calling thread, and in threads that it starts.
fn refuse(calls: std::ops::RangeInclusive<libc::c_long>, error: i32) {
    let number = |call: libc::c_long| u32::try_from(call).expect("a system call");
    let error = u32::try_from(error).expect("an error");
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let at_least = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
    let above = libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K;
    let end = libc::BPF_RET | libc::BPF_K;
    let step = |code: u32, jt, jf, k| libc::sock_filter {
        code: u16::try_from(code).expect("an instruction"),
        jt,
        jf,
        k,
    };
    // The number of the call is at the start of what a filter sees.
    let mut filter = [
        step(load, 0, 0, 0),
        step(at_least, 0, 2, number(*calls.start())),
        step(above, 1, 0, number(*calls.end())),
        step(end, 0, 0, libc::SECCOMP_RET_ERRNO | error),
        step(end, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 5, filter: filter.as_mut_ptr() };
    // SAFETY: it takes numbers only.
    let closed = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(closed, 0);
    // SAFETY: the program and its instructions live through the call.
    let set =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}

/// What `choose` says where these system calls are refused. It must not wait for an answer that never comes.
fn chosen(
    calls: std::ops::RangeInclusive<libc::c_long>,
    error: i32,
    io: Io,
) -> Result<Choice, String> {
    let (answer, answers) = mpsc::channel();
    std::thread::spawn(move || {
        refuse(calls, error);
        let _ = answer.send(choose(io, RingSize::Large).map_err(|refusal| refusal.to_string()));
    });
    answers.recv_timeout(Duration::from_secs(60)).expect("an answer, and no wait for ever")
}

const SETUP: libc::c_long = libc::SYS_io_uring_setup;
const ENTER: libc::c_long = libc::SYS_io_uring_enter;
const REGISTER: libc::c_long = libc::SYS_io_uring_register;

#[test]
fn where_io_uring_is_refused_epoll_is_chosen_with_a_reason() {
    for error in [libc::EPERM, libc::ENOSYS] {
        for (calls, what) in [
            (SETUP..=REGISTER, "io_uring_setup is refused"),
            (SETUP..=SETUP, "io_uring_setup is refused"),
            (ENTER..=ENTER, "io_uring_enter is refused"),
        ] {
            let choice = chosen(calls.clone(), error, Io::Auto);
            let Ok(Choice::Epoll(Some(refusal))) = choice else { panic!("{choice:?}") };
            let text = refusal.to_string();
            assert!(text.starts_with(what), "{text}");
            assert!(text.contains("seccomp profile") && text.contains("--security-opt"), "{text}");
            let forced = chosen(calls, error, Io::IoUring);
            assert_eq!(forced.map(|choice| choice.name()), Err(text));
        }
    }
}

/// No kernel of the worker needs it, so a profile may refuse it.
#[test]
fn io_uring_register_is_not_needed() {
    let choice = chosen(REGISTER..=REGISTER, libc::EPERM, Io::Auto);
    assert!(matches!(choice, Ok(Choice::Uring(RingSize::Large))), "{choice:?}");
}

#[test]
fn epoll_is_used_where_it_is_asked_for_and_nothing_is_probed() {
    let choice = chosen(SETUP..=REGISTER, libc::EPERM, Io::Epoll);
    assert!(matches!(choice, Ok(Choice::Epoll(None))), "{choice:?}");
}
