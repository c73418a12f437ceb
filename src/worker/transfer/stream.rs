//! Records and descriptors between two workers: batches over a Unix stream.
//!
//! Owns a stream and the batch in progress. Does not know what a record means (`record.rs`). A batch is a header of 8
//! bytes (bytes of its records, number of descriptors), to which the kernel attaches the descriptors, and then the
//! records. The peer must run as root or as the same user. Limits: both sides block for at most `PATIENCE` a step;
//! `DESCRIPTORS_MAX` and `BATCH_BYTES_MAX` for each batch. A receiver allocates what arrives, not what a header
//! announces, and keeps room for `BATCH_BYTES_KEPT` between two batches. Cost: usually two system calls a batch for the
//! sender, some more for the receiver; each byte is copied once by each side, and once by the kernel.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::io::retry_on_intr;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

use super::record::{FORMAT, Record};
use crate::limits;
pub(crate) use crate::worker::sys::peer_credentials;

/// How long one step of the other side may take. Clients wait during a transfer.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// Descriptors of one batch. The kernel takes at most 253 in one message (SCM_MAX_FD).
const DESCRIPTORS_MAX: usize = 128;
/// A batch with at least this many bytes is sent.
const BATCH_BYTES: usize = 128 * 1024;
/// The largest batch. One record may be larger than `BATCH_BYTES`: that of a connection with a full send queue, or of a
/// presence channel, where this is enough for millions of members.
const BATCH_BYTES_MAX: usize = 512 << 20;
/// Room for records that a receiver keeps for the next batch.
const BATCH_BYTES_KEPT: usize = 4 * BATCH_BYTES;
const _: () = assert!(
    BATCH_BYTES + 2 * limits::MESSAGE_SIZE_OPTION_MAX + limits::SEND_QUEUE_BYTES_OPTION_MAX
        <= BATCH_BYTES_MAX,
    "a batch below its threshold, and the record of a connection with a full send queue and an incomplete message"
);

/// Checks that the other side runs as root or as the same user. Such a process could end this one by a signal anyway.
///
/// # Errors
/// If it runs as another user, or the kernel does not report its user.
pub(crate) fn check_user(peer: &UnixStream) -> io::Result<()> {
    let user = peer_credentials(peer)?.user;
    if user == 0 || user == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    let why = format!("the other side runs as user {user}, not as this one");
    Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
}

pub(super) struct Outgoing<'a> {
    stream: UnixStream,
    bytes: Vec<u8>,
    descriptors: Vec<BorrowedFd<'a>>,
    records: u64,
}

impl<'a> Outgoing<'a> {
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        check_user(&stream)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, bytes: Vec::new(), descriptors: Vec::new(), records: 0 })
    }

    /// Adds a record to the batch, with its socket if it has one. Sends the batch if it is full.
    pub(super) fn send_record(
        &mut self,
        record: &Record,
        socket: Option<BorrowedFd<'a>>,
    ) -> io::Result<()> {
        debug_assert_eq!(record.has_socket(), socket.is_some());
        self.bytes = record.encode(std::mem::take(&mut self.bytes))?;
        self.descriptors.extend(socket);
        self.records += 1;
        if self.bytes.len() >= BATCH_BYTES || self.descriptors.len() == DESCRIPTORS_MAX {
            self.send()?;
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> io::Result<()> {
        let end = Record::End { records: self.records };
        self.send_record(&end, None)?;
        self.send()
    }

    fn send(&mut self) -> io::Result<()> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !self.descriptors.is_empty()
            && !ancillary.push(SendAncillaryMessage::ScmRights(&self.descriptors))
        {
            return Err(io::Error::other("more descriptors than one message holds"));
        }
        let header = header(self.bytes.len(), self.descriptors.len())?;
        let content = [IoSlice::new(&header)];
        let sent = retry_on_intr(|| {
            rustix::net::sendmsg(&self.stream, &content, &mut ancillary, SendFlags::NOSIGNAL)
        })
        .map_err(|error| timeout_error(error.into(), "new", "received"))?;
        if sent != header.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.stream
            .write_all(&self.bytes)
            .map_err(|error| timeout_error(error, "new", "received"))?;
        self.bytes.clear();
        self.descriptors.clear();
        Ok(())
    }
}

pub(super) struct Incoming {
    stream: UnixStream,
    bytes: Vec<u8>,
}

impl Incoming {
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        check_user(&stream)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream, bytes: Vec::new() })
    }

    /// Passes each record, with its socket if it has one, to `each`, until the end.
    pub(super) fn receive_all(
        &mut self,
        mut each: impl FnMut(Record, Option<OwnedFd>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut count = 0;
        loop {
            let mut sockets = self.receive()?.into_iter();
            let mut rest = self.bytes.as_slice();
            while !rest.is_empty() {
                let (record, after) = Record::decode(rest).map_err(|error| {
                    format_error(&format!("record {} is malformed ({error})", count + 1))
                })?;
                rest = after;
                if let Record::End { records } = record {
                    let (bytes, more) = (rest.len(), sockets.count());
                    return if (records, bytes, more) == (count, 0, 0) {
                        Ok(())
                    } else {
                        Err(format_error(&format!(
                            "the end names {records} records, {count} have arrived, and {bytes} bytes and {more} \
                             sockets follow it"
                        )))
                    };
                }
                count += 1;
                let socket = if record.has_socket() {
                    let missing = || format_error(&format!("record {count} has no socket"));
                    Some(sockets.next().ok_or_else(missing)?)
                } else {
                    None
                };
                each(record, socket)?;
            }
            let more = sockets.count();
            if more > 0 {
                return Err(format_error(&format!(
                    "a batch has {more} sockets more than its records need"
                )));
            }
        }
    }

    /// Reads the next batch. Its records are in `bytes`, its descriptors are returned.
    fn receive(&mut self) -> io::Result<Vec<OwnedFd>> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut header = [0; 8];
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::WAITALL;
        let received = retry_on_intr(|| {
            let into = &mut [IoSliceMut::new(&mut header)];
            rustix::net::recvmsg(&self.stream, into, &mut ancillary, flags)
        })
        .map_err(|error| timeout_error(error.into(), "old", "sent"))?;
        let mut sockets = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                sockets.extend(descriptors);
            }
        }
        if received.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if received.flags.contains(ReturnFlags::CTRUNC) {
            let why = "not all sockets found a descriptor here; raise LimitNOFILE or ulimit -n";
            return Err(io::Error::other(why));
        }
        let [bytes, descriptors] = [0, 4].map(|at| {
            let number = [header[at], header[at + 1], header[at + 2], header[at + 3]];
            u32::from_le_bytes(number) as usize
        });
        if received.bytes != header.len() {
            let (count, whole) = (received.bytes, header.len());
            return Err(format_error(&format!(
                "a header of a batch has {count} bytes, not {whole}"
            )));
        }
        if descriptors != sockets.len() {
            let count = sockets.len();
            let what = format!(
                "a header of a batch names {descriptors} sockets, and {count} came with it"
            );
            return Err(format_error(&what));
        }
        if bytes > BATCH_BYTES_MAX {
            return Err(format_error(&format!(
                "a header of a batch names {bytes} bytes, and {BATCH_BYTES_MAX} is the most"
            )));
        }
        self.bytes.clear();
        // The room of a large batch is freed, because what was imported from it takes the same memory again.
        self.bytes.shrink_to(BATCH_BYTES_KEPT);
        self.bytes.reserve(bytes.min(BATCH_BYTES));
        let read = (&self.stream)
            .take(bytes as u64)
            .read_to_end(&mut self.bytes)
            .map_err(|error| timeout_error(error, "old", "sent"))?;
        if read != bytes {
            let why = format!(
                "the old process closed the stream after {read} of {bytes} bytes of a batch"
            );
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
        }
        Ok(sockets)
    }
}

/// # Errors
/// If the batch is over `BATCH_BYTES_MAX`: one record of it is, because `send_record` does not add to a full batch.
fn header(bytes: usize, descriptors: usize) -> io::Result<[u8; 8]> {
    let too_large = || {
        io::Error::other(format!(
            "a batch with one connection or channel has {bytes} bytes, and {BATCH_BYTES_MAX} is the most. Restart the \
             server without a take-over. For connections, lower RINGVERB_SEND_QUEUE_BYTES_MAX or \
             RINGVERB_CONNECTION_BYTES_MAX; for presence channels, RINGVERB_PRESENCE_MEMBERS_MAX"
        ))
    };
    let bytes = u32::try_from(bytes).ok().filter(|_| bytes <= BATCH_BYTES_MAX);
    let bytes = bytes.ok_or_else(too_large)?;
    debug_assert!(descriptors <= DESCRIPTORS_MAX, "`send_record` sends before there are more");
    let descriptors = u32::try_from(descriptors).map_err(io::Error::other)?;
    let mut header = [0; 8];
    header[..4].copy_from_slice(&bytes.to_le_bytes());
    header[4..].copy_from_slice(&descriptors.to_le_bytes());
    Ok(header)
}

/// The system reports a wait that took longer than `PATIENCE` as "Resource temporarily unavailable", which does not
/// name the reason.
fn timeout_error(error: io::Error, other: &str, did: &str) -> io::Error {
    if !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) {
        return error;
    }
    let why = format!(
        "the {other} process {did} nothing for {} s, which is the limit of a step. Try again when the host has less to \
         do, or lower RINGVERB_SEND_QUEUE_BYTES_MAX, so that a step has fewer bytes",
        PATIENCE.as_secs()
    );
    io::Error::new(io::ErrorKind::TimedOut, why)
}

/// `what`: how the bytes of the old process break the format.
fn format_error(what: &str) -> io::Error {
    let why = format!(
        "{what}, against format {FORMAT} of the transfer, which both processes have. If another try fails too, restart \
         the server without a take-over, and its clients reconnect"
    );
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    fn session(number: usize, length: usize) -> Record {
        Record::Session {
            peer: crate::tick::SessionPeer { address: ([127, 0, 0, 1], 1).into(), is_named: false },
            served: number.is_multiple_of(2),
            input: vec![1; length],
            secure: None,
        }
    }

    #[test]
    fn records_arrive_in_order_with_their_sockets() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        // The bytes in a socket identify it.
        let pairs: Vec<_> = (0..1_000).map(|_| UnixStream::pair().unwrap()).collect();
        for (number, (near, _)) in pairs.iter().enumerate() {
            (&*near).write_all(&u32::try_from(number).unwrap().to_le_bytes()).unwrap();
        }
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut outgoing = Outgoing::new(ours).unwrap();
                for (number, (_, far)) in pairs.iter().enumerate() {
                    outgoing.send_record(&session(number, number * 7), Some(far.as_fd())).unwrap();
                }
                outgoing.finish().unwrap();
            });
            let mut next = 0;
            let each = |record, socket: Option<OwnedFd>| {
                assert_eq!(record, session(next, next * 7));
                let mut number = [0; 4];
                UnixStream::from(socket.expect("its socket")).read_exact(&mut number)?;
                assert_eq!(u32::from_le_bytes(number) as usize, next);
                next += 1;
                Ok(())
            };
            Incoming::new(theirs).unwrap().receive_all(each).unwrap();
            assert_eq!(next, 1_000);
        });
    }

    #[test]
    fn a_stream_that_ends_too_early_is_an_error() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut outgoing = Outgoing::new(ours).unwrap();
        let (one, _other) = UnixStream::pair().unwrap();
        outgoing.send_record(&session(0, 10), Some(one.as_fd())).unwrap();
        outgoing.send().unwrap();
        drop(outgoing);
        let mut count = 0;
        let result = Incoming::new(theirs).unwrap().receive_all(|_, _| {
            count += 1;
            Ok(())
        });
        assert_eq!((count, result.unwrap_err().kind()), (1, io::ErrorKind::UnexpectedEof));
    }

    fn result_of(write: impl FnOnce(&UnixStream)) -> io::Error {
        let (ours, theirs) = UnixStream::pair().unwrap();
        write(&ours);
        drop(ours);
        Incoming::new(theirs).unwrap().receive_all(|_, _| Ok(())).unwrap_err()
    }

    /// The receiver waits for the bytes of a batch with the largest send queue that the option allows. It does not
    /// refuse the header.
    #[test]
    fn a_batch_may_have_a_send_queue_of_the_largest_size() {
        let bytes = limits::SEND_QUEUE_BYTES_OPTION_MAX + BATCH_BYTES;
        let header = header(bytes, 0).unwrap();
        let error = result_of(|stream| {
            (&*stream).write_all(&header).unwrap();
            (&*stream).write_all(&[0; 10]).unwrap();
        });
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        let text =
            format!("the old process closed the stream after 10 of {bytes} bytes of a batch");
        assert_eq!(error.to_string(), text);
    }

    #[test]
    fn a_batch_over_the_limit_is_refused_by_its_sender_with_the_options_to_change() {
        assert_eq!(header(BATCH_BYTES_MAX, 1).unwrap(), [0, 0, 0, 32, 1, 0, 0, 0]);
        for bytes in [BATCH_BYTES_MAX + 1, u32::MAX as usize + 1] {
            let text = header(bytes, 1).unwrap_err().to_string();
            assert!(text.contains(&format!("has {bytes} bytes, and 536870912 is the most.")));
            assert!(text.contains("lower RINGVERB_SEND_QUEUE_BYTES_MAX"), "{text}");
        }
    }

    /// Beside the last batch, what was made of the records of all batches is in memory.
    #[test]
    fn a_receiver_does_not_keep_the_room_of_a_large_batch() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut incoming = Incoming::new(theirs).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut outgoing = Outgoing::new(ours).unwrap();
                outgoing.send_record(&Record::TicketKeys(vec![vec![0; 8 << 20]]), None).unwrap();
                outgoing.send_record(&Record::TicketKeys(vec![vec![0; 10]]), None).unwrap();
                outgoing.finish().unwrap();
            });
            let mut sizes = Vec::new();
            for _ in 0..2 {
                incoming.receive().unwrap();
                sizes.push((incoming.bytes.len(), incoming.bytes.capacity()));
            }
            assert!(sizes[0].0 > 8 << 20 && sizes[1].0 < BATCH_BYTES, "{sizes:?}");
            assert!(sizes[1].1 <= BATCH_BYTES_KEPT, "{sizes:?}");
        });
    }

    #[test]
    fn a_step_that_takes_too_long_is_named_with_its_limit() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut incoming = Incoming::new(theirs).unwrap();
        incoming.stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let error = incoming.receive_all(|_, _| Ok(())).unwrap_err();
        assert!(error.to_string().starts_with("the old process sent nothing for 5 s, "), "{error}");
        (&ours).write_all(&header(1, 0).unwrap()).unwrap();
        let error = incoming.receive_all(|_, _| Ok(())).unwrap_err();
        assert!(error.to_string().starts_with("the old process sent nothing for 5 s, "), "{error}");
        let mut outgoing = Outgoing::new(ours).unwrap();
        outgoing.stream.set_write_timeout(Some(Duration::from_millis(1))).unwrap();
        let error =
            outgoing.send_record(&Record::TicketKeys(vec![vec![0; 4 << 20]]), None).unwrap_err();
        assert!(
            error.to_string().starts_with("the new process received nothing for 5 s, "),
            "{error}"
        );
        let gone = timeout_error(io::ErrorKind::BrokenPipe.into(), "new", "received");
        assert_eq!(gone.kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn what_breaks_the_format_is_named_with_its_values() {
        let batch = |records: &[Record], descriptors: usize| {
            let encode = |bytes, record: &Record| record.encode(bytes).unwrap();
            let bytes = records.iter().fold(Vec::new(), encode);
            [header(bytes.len(), descriptors).unwrap().to_vec(), bytes].concat()
        };
        let end = |records| Record::End { records };
        let cases = [
            (vec![0; 3], "a header of a batch has 3 bytes, not 8, against format"),
            (
                batch(&[end(0)], 2),
                "a header of a batch names 2 sockets, and 0 came with it, against",
            ),
            (batch(&[session(0, 1)], 0), "record 1 has no socket, against"),
            (
                batch(&[end(7), end(7)], 0),
                "the end names 7 records, 0 have arrived, and 2 bytes and 0 sockets follow it, against",
            ),
            ([header(1, 0).unwrap().to_vec(), vec![255]].concat(), "record 1 is malformed ("),
            (
                [1, 0, 0, 32, 0, 0, 0, 0].to_vec(),
                "a header of a batch names 536870913 bytes, and 536870912 is the most, against",
            ),
        ];
        for (bytes, expected) in cases {
            let error = result_of(|stream| (&*stream).write_all(&bytes).unwrap());
            assert!(error.to_string().starts_with(expected), "{error}");
            assert!(
                error.to_string().contains("restart the server without a take-over"),
                "{error}"
            );
        }
    }
}
