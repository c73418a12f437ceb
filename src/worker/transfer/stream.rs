//! Records and descriptors between two workers: batches over a Unix stream.
//!
//! A batch is a header of 8 bytes (bytes of its records, number of descriptors), to which the kernel attaches the
//! descriptors, and then the records. Both sides block for at most `PATIENCE` a step. The peer must run as root or as
//! the same user. Limits: `DESCRIPTORS_MAX` and `BATCH_BYTES_MAX` for each batch.

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

use super::record::Record;
pub(crate) use crate::worker::sys::peer_credentials;

/// Time limit for each step of the other side.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// The kernel takes 253.
const DESCRIPTORS_MAX: usize = 128;
/// A batch with this many bytes is sent.
const BATCH_BYTES: usize = 128 * 1024;
/// The largest batch that is accepted: one batch threshold plus one record. The largest record contains a full send
/// queue.
const BATCH_BYTES_MAX: usize = 256 * 1024 * 1024;

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

/// The sending end.
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

    /// A record, with its socket if it has one.
    pub(super) fn put(
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
        self.put(&end, None)?;
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
        let [bytes, descriptors] = [self.bytes.len(), self.descriptors.len()]
            .map(|count| u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
        let header = [bytes, descriptors].concat();
        let text = [IoSlice::new(&header)];
        let sent = retry_on_intr(|| {
            rustix::net::sendmsg(&self.stream, &text, &mut ancillary, SendFlags::NOSIGNAL)
        })?;
        if sent != header.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.stream.write_all(&self.bytes)?;
        self.bytes.clear();
        self.descriptors.clear();
        Ok(())
    }
}

/// The receiving end.
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
                let (record, behind) = Record::decode(rest)?;
                rest = behind;
                if let Record::End { records } = record {
                    let whole = records == count && rest.is_empty() && sockets.next().is_none();
                    return if whole { Ok(()) } else { Err(garbled()) };
                }
                count += 1;
                let socket = if record.has_socket() {
                    Some(sockets.next().ok_or_else(garbled)?)
                } else {
                    None
                };
                each(record, socket)?;
            }
            if sockets.next().is_some() {
                return Err(garbled());
            }
        }
    }

    /// The next batch: its records go to `bytes`.
    fn receive(&mut self) -> io::Result<Vec<OwnedFd>> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut header = [0; 8];
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::WAITALL;
        let received = retry_on_intr(|| {
            let into = &mut [IoSliceMut::new(&mut header)];
            rustix::net::recvmsg(&self.stream, into, &mut ancillary, flags)
        })?;
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
        if received.bytes != header.len() || descriptors != sockets.len() || bytes > BATCH_BYTES_MAX
        {
            return Err(garbled());
        }
        self.bytes.resize(bytes, 0);
        self.stream.read_exact(&mut self.bytes)?;
        Ok(sockets)
    }
}

fn garbled() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "the other process sent records that this version cannot read",
    )
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
                    outgoing.put(&session(number, number * 7), Some(far.as_fd())).unwrap();
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
        outgoing.put(&session(0, 10), Some(one.as_fd())).unwrap();
        outgoing.send().unwrap();
        drop(outgoing);
        let mut count = 0;
        let result = Incoming::new(theirs).unwrap().receive_all(|_, _| {
            count += 1;
            Ok(())
        });
        assert_eq!((count, result.unwrap_err().kind()), (1, io::ErrorKind::UnexpectedEof));
    }
}
