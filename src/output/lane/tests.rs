//! A lane whose stream is slow, full, closed, or accepts text again.

use super::*;
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

const BOUNDS: Bounds = Bounds { texts_max: 64, bytes_max: 16 * 1024 };

fn pipe() -> (OwnedFd, OwnedFd) {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    fcntl_setpipe_size(&writer, 4096).unwrap();
    (reader, writer)
}

fn here() -> LossReport {
    Box::new(|losses| {
        let LostLines { queue_full, write_failed: unwritten, over_rate, .. } = losses;
        Reported::Here(format!("lost {queue_full} {unwritten} {over_rate}\n").into_bytes())
    })
}

fn lane(stream: OwnedFd) -> OutputLane {
    OutputLane::start("lane", stream, BOUNDS, here(), None).unwrap()
}

fn soon(millis: u64) -> Instant {
    now() + Duration::from_millis(millis)
}

fn line(number: u64) -> Vec<u8> {
    format!("{number:>99}\n").into_bytes()
}

#[test]
fn all_is_written_in_order_before_a_flush_returns() {
    let (reader, writer) = pipe();
    let lane = lane(writer);
    let reader = std::thread::spawn(move || {
        BufReader::new(File::from(reader)).lines().map(Result::unwrap).collect::<Vec<_>>()
    });
    for number in 0..1_000 {
        // So the queue has room for each line. A line that finds none causes a report, which is a line, too.
        if number % 32 == 0 {
            assert!(lane.flush(soon(10_000)));
        }
        assert!(lane.push(line(number)), "{number}");
    }
    assert!(lane.flush(soon(10_000)));
    assert!(lane.unreported_losses().is_none());
    drop(lane);
    let lines: Vec<u64> =
        reader.join().unwrap().iter().map(|line| line.trim().parse().unwrap()).collect();
    assert_eq!(lines, (0..1_000).collect::<Vec<_>>());
}

#[test]
fn a_reader_that_stops_costs_lines_and_no_thread_waits() {
    let (reader, writer) = pipe();
    let lane = lane(writer);
    let start = now();
    let pushed: Vec<u64> = (0..10_000).filter(|number| lane.push(line(*number))).collect();
    let lost = 10_000 - pushed.len() as u64;
    assert!(!lane.flush(soon(50)), "nobody reads");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert!(pushed.len() < 41 + 656 + 64 + 64, "{}", pushed.len());
    assert_eq!(lane.unreported_losses().queue_full, lost);
    assert_eq!(lane.losses_since_start(), lane.unreported_losses());
    let queued = lane.queued_bytes();
    assert!(queued.now <= queued.peak && queued.peak <= BOUNDS.bytes_max, "{queued:?}");
    assert!(queued.peak > BOUNDS.bytes_max / 3, "the queue was full: {queued:?}");
    let mut lines = BufReader::new(File::from(reader)).lines().map(Result::unwrap);
    for number in pushed {
        assert_eq!(lines.next().unwrap().trim(), number.to_string());
    }
    assert_eq!(lines.next().unwrap(), format!("lost {lost} 0 0"));
    assert!(lane.push(line(7)) && lane.flush(soon(10_000)));
    assert_eq!(lines.next().unwrap().trim(), "7");
    assert!(lane.unreported_losses().is_none());
}

#[test]
fn lines_that_cannot_be_written_are_counted() {
    let full: OwnedFd = File::options().write(true).open("/dev/full").unwrap().into();
    let lane = lane(full);
    for number in 0..10 {
        assert!(lane.push(line(number)));
        assert!(lane.flush(soon(10_000)));
    }
    let losses = lane.unreported_losses();
    assert_eq!((losses.write_failed, losses.last_error), (10, libc::ENOSPC));
    let (reader, writer) = pipe();
    drop(reader);
    let lane = super::tests::lane(writer);
    assert!(lane.push(b"a\nb\nc\n".to_vec()) && lane.flush(soon(10_000)));
    assert_eq!(
        (lane.unreported_losses().write_failed, lane.unreported_losses().last_error),
        (3, libc::EPIPE)
    );
}

/// Another process may have set O_NONBLOCK on a terminal or pipe it shares with us.
#[test]
fn a_stream_that_does_not_wait_loses_nothing() {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
    fcntl_setpipe_size(&writer, 4096).unwrap();
    rustix::io::ioctl_fionbio(&reader, false).unwrap();
    let lane = lane(writer);
    let text: Vec<u8> = (0..400).flat_map(line).collect();
    assert!(lane.push(text), "one text larger than the bound, because nothing else waits");
    let mut lines = BufReader::new(File::from(reader)).lines().map(Result::unwrap);
    for number in 0..400 {
        assert_eq!(lines.next().unwrap().trim(), number.to_string());
    }
    assert!(lane.flush(soon(10_000)) && lane.unreported_losses().is_none());
}

#[test]
fn lines_over_the_rate_are_reported_once_in_a_while() {
    let (reader, writer) = pipe();
    let lane = lane(writer);
    let mut lines = BufReader::new(File::from(reader)).lines().map(Result::unwrap);
    (0..3).for_each(|_| lane.count_over_rate());
    assert!(lane.push(b"a\n".to_vec()));
    assert_eq!((lines.next().unwrap(), lines.next().unwrap()), ("a".into(), "lost 0 0 3".into()));
    lane.count_over_rate();
    assert!(lane.push(b"b\n".to_vec()));
    assert_eq!(lines.next().unwrap(), "b");
    assert!(lane.flush(soon(10_000)));
    assert_eq!(lines.next().unwrap(), "lost 0 0 1", "the end reports what is left");
}

/// No line follows the lost one. The other stream receives the loss at once, and this one when it accepts text again.
#[test]
fn a_loss_is_reported_to_the_other_stream_and_here_as_soon_as_that_is_possible() {
    let name = format!("ringverb lane {}", std::process::id());
    let name = SocketAddr::from_abstract_name(name).unwrap();
    let reader = UnixDatagram::bind_addr(&name).unwrap();
    reader.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    // A socket without a peer refuses text, until it has one.
    let socket = UnixDatagram::unbound().unwrap();
    let stream = socket.try_clone().unwrap();
    let (sender, reported) = mpsc::channel();
    let other: ReportElsewhere = Box::new(move |line| sender.send(line).unwrap());
    let lane = OutputLane::start("lane", stream, BOUNDS, here(), Some(other)).unwrap();
    assert!(lane.push(line(1)));
    let report = reported.recv_timeout(Duration::from_secs(30)).unwrap();
    assert_eq!(report, b"lost 0 1 0\n");
    assert!(lane.flush(soon(10_000)));
    assert_eq!(lane.unreported_losses().write_failed, 1, "this stream has no report yet");
    assert!(!lane.has_unreported_write_failures(), "the end of the process adds no second report");
    assert!(lane.push(line(1)) && lane.flush(soon(10_000)));
    assert!(
        lane.has_unreported_write_failures(),
        "the other stream has no report of the second line"
    );
    socket.connect_addr(&name).unwrap();
    let mut text = [0; 64];
    let count = reader.recv(&mut text).unwrap();
    assert_eq!(&text[..count], b"lost 0 2 0\n");
    assert!(lane.flush(soon(10_000)) && lane.unreported_losses().is_none());
    assert!(!lane.has_unreported_write_failures());
    assert!(reported.try_recv().is_err(), "the other stream has one report a minute");
}
