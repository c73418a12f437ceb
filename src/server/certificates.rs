//! The certificates of the server: read at the start, and again when their files change. New session ticket keys.
//!
//! Owns the files' names, and the last `AcceptorLink`. A start fails with a sentence for each pair that cannot be used.
//! During the run, a pair that cannot be used leaves the earlier one in use, with one log line for each change. New
//! handshakes use a new pair within twice `LOOK_EVERY` plus one second, after a reload (SIGHUP) within `LISTEN_EVERY`
//! plus one second; established connections stay. `certbot renew` needs no hook. Does not read the content
//! (`tls/identity.rs`).
//! Limits: `config/tls.rs` bounds the number of pairs, and `FILE_BYTES_MAX` the bytes of each file. Cost: one `stat`
//! for each file every 2 s, on the control thread; a change reads the files once.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use monoio::time::sleep;
use rustls::ServerConfig;

use super::control::Control;
use super::doctor::{Finding, Verdict};
use crate::config::{MaskedText, TlsOptions, TlsPair};
use crate::latest_value::LatestValue;
use crate::tls::acceptor::{Acceptor, AcceptorLink};
use crate::tls::identity::{self, Identity, TICKET_LIFETIME_SECONDS};
use crate::tls::ticket::{TICKET_KEY_BYTES, TicketKey};
use crate::worker::time::unix_seconds;

/// Between two looks at the files. A change counts when two looks agree, so that a pair is not read between the writes
/// of its two files.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Between two looks for a reload, after which changed files count at once.
const LISTEN_EVERY: Duration = Duration::from_millis(500);
/// Chains have some KB. Without a limit, a path to a device would fill the memory.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Ticket keys that are in use: one seals, and all open. So a ticket can be used for its whole lifetime.
const TICKET_KEYS: usize = 3;
/// A start, and each reading of changed files, warns of a certificate that expires within so many seconds. No timer
/// does: `ringverb_tls_certificate_expires_seconds` is for alerts between two readings.
const EXPIRY_NOTICE_SECONDS: i64 = 14 * 86_400;

/// Two equal stamps count as the same content, as for `make`: a renewal changes at least one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileStamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

/// In the order of the pairs, certificate before key. `None`: the file cannot be read.
type Stamps = Vec<Option<FileStamp>>;

pub(super) struct Certificates {
    options: TlsOptions,
    identities: Vec<Identity>,
    acceptor_link: Arc<AcceptorLink>,
    /// The stamps of the files that were read last. A difference causes a reload.
    stamps_of_last_read: Stamps,
    /// The files that were read last could not be used. The reason may end without a change of the files: their rights,
    /// the time.
    has_failed: bool,
    rotate_at_seconds: u64,
    valid_until: Arc<ValidUntil>,
}

/// The files of the certificates in use, each with the end of its validity in seconds since 1970.
pub(super) type ValidUntil = LatestValue<Vec<(String, i64)>>;

impl Certificates {
    /// # Errors
    /// One sentence for each pair that cannot be used.
    pub(super) fn load(options: &TlsOptions) -> Result<Self, Vec<String>> {
        let stamps_of_last_read = stamps(options);
        let identities = identities(options)?;
        let keys = match &options.ticket_secret {
            Some(secret) => shared_keys(secret, unix_seconds()),
            None => vec![new_ticket_key().map_err(|error| vec![error])?],
        };
        let acceptor_link =
            new_acceptor_link(identities.clone(), keys).map_err(|error| vec![error])?;
        let rotate_at_seconds = next_rotation(options, unix_seconds());
        let valid_until = Arc::new(ValidUntil::new(valid_until_of(options, &identities)));
        let (options, has_failed) = (options.clone(), false);
        Ok(Self {
            options,
            identities,
            acceptor_link,
            stamps_of_last_read,
            has_failed,
            rotate_at_seconds,
            valid_until,
        })
    }

    pub(super) fn valid_until(&self) -> Arc<ValidUntil> {
        self.valid_until.clone()
    }

    pub(super) fn acceptor_link(&self) -> Arc<AcceptorLink> {
        self.acceptor_link.clone()
    }

    /// The server uses these certificates, but clients may refuse them. Logged at the start and after each reload.
    pub(super) fn warnings(&self) -> Vec<String> {
        let pairs = self.options.pairs.iter().zip(&self.identities);
        pairs.flat_map(|(pair, identity)| warnings(pair, identity)).collect()
    }

    /// Accepts the tickets of the process whose place this one takes, too.
    pub(super) fn adopt_ticket_keys(&mut self, keys: &[TicketKey]) {
        if self.options.ticket_secret.is_some() {
            // The shared keys seal, or other nodes could not open the tickets.
            let own = self.acceptor_link.ticket_keys.iter().map(TicketKey::to_bytes);
            let own: Vec<_> = own.collect();
            let others = keys.iter().filter(|key| !own.contains(&key.to_bytes()));
            let others = others.take(TICKET_KEYS);
            let keys = self.acceptor_link.ticket_keys.iter().chain(others).cloned().collect();
            self.publish_identities(self.identities.clone(), keys);
        } else if !keys.is_empty() {
            // The first one seals, so that tickets of both processes are alike while both serve.
            let own = self.acceptor_link.ticket_keys.iter();
            let keys = keys.iter().chain(own).take(TICKET_KEYS).cloned().collect();
            self.publish_identities(self.identities.clone(), keys);
        }
    }

    /// Runs until the process ends. `changes` has the files after each reload.
    ///
    /// # Errors
    /// When the control thread has ended.
    pub(super) fn watch(self, control: &Control, changes: Receiver<TlsOptions>) -> io::Result<()> {
        control.run(|| Ok(self.look_on(changes)))
    }

    /// A reload calls this before it changes anything.
    ///
    /// # Errors
    /// One sentence for each pair that cannot be used.
    pub(super) fn check(options: &TlsOptions) -> Result<(), Vec<String>> {
        identities(options).map(drop)
    }

    async fn look_on(mut self, changes: Receiver<TlsOptions>) {
        let mut seen = self.stamps_of_last_read.clone();
        loop {
            for _ in 0..LOOK_EVERY.as_millis() / LISTEN_EVERY.as_millis() {
                sleep(LISTEN_EVERY).await;
                if let Some(options) = changes.try_iter().last() {
                    self.read_again(options);
                }
            }
            let now = stamps(&self.options);
            if now == seen && now != self.stamps_of_last_read {
                self.stamps_of_last_read = now.clone();
                self.reload();
            }
            seen = now;
            if unix_seconds() >= self.rotate_at_seconds {
                self.rotate_ticket_keys();
            }
        }
    }

    /// After a reload: other files or another passphrase, the same files with another content, or a second attempt.
    fn read_again(&mut self, options: TlsOptions) {
        let now = stamps(&options);
        if now != self.stamps_of_last_read || options != self.options || self.has_failed {
            self.options = options;
            self.stamps_of_last_read = now;
            self.reload();
        }
    }

    fn reload(&mut self) {
        let found = identities(&self.options);
        self.has_failed = found.is_err();
        match found {
            Ok(identities) => {
                if self.publish_identities(identities, self.acceptor_link.ticket_keys.clone()) {
                    tracing::info!(
                        event = "certificates_reloaded",
                        "certificates reloaded: new TLS handshakes use them"
                    );
                    self.warnings().iter().for_each(|warning| {
                        tracing::warn!(event = "certificates_warning", "{warning}")
                    });
                }
            }
            Err(problems) => tracing::error!(
                event = "certificates_not_reloaded",
                "certificates not reloaded, and the earlier ones stay in use: {}",
                problems.join("; ")
            ),
        }
    }

    fn rotate_ticket_keys(&mut self) {
        self.rotate_at_seconds = next_rotation(&self.options, unix_seconds());
        if let Some(secret) = &self.options.ticket_secret {
            let keys = shared_keys(secret, unix_seconds());
            self.publish_identities(self.identities.clone(), keys);
            return;
        }
        match new_ticket_key() {
            Ok(key) => {
                let older = self.acceptor_link.ticket_keys.iter().take(TICKET_KEYS - 1).cloned();
                let keys = std::iter::once(key).chain(older).collect();
                self.publish_identities(self.identities.clone(), keys);
            }
            Err(error) => tracing::error!(event = "certificates_not_reloaded", "{error}"),
        }
    }

    /// `false`: the TLS library refuses them, and the earlier ones stay in use.
    fn publish_identities(
        &mut self,
        identities: Vec<Identity>,
        ticket_keys: Vec<TicketKey>,
    ) -> bool {
        match new_acceptor_link(identities.clone(), ticket_keys) {
            Ok(next) => {
                self.acceptor_link.append(next.clone());
                self.valid_until.set(valid_until_of(&self.options, &identities));
                (self.acceptor_link, self.identities) = (next, identities);
                true
            }
            Err(error) => {
                tracing::error!(event = "certificates_not_reloaded", "{error}");
                false
            }
        }
    }
}

fn valid_until_of(options: &TlsOptions, identities: &[Identity]) -> Vec<(String, i64)> {
    let pairs = options.pairs.iter().zip(identities);
    pairs.map(|(pair, identity)| (pair.certificate.clone(), identity.valid_until)).collect()
}

/// `ringverb check` reads the pairs as a start does.
pub(super) fn findings_of_certificates(options: &TlsOptions) -> Vec<Finding> {
    let examine = |pair: &TlsPair| match identity(pair, options) {
        Err(problem) => vec![Finding::new(Verdict::Problem, "tls", problem)],
        Ok(identity) => {
            let until = identity::date(identity.valid_until);
            let text = format!("{} is valid until {until}", pair.certificate);
            let warnings = warnings(pair, &identity).into_iter();
            let warnings = warnings.map(|text| Finding::new(Verdict::Warning, "tls", text));
            std::iter::once(Finding::new(Verdict::Good, "tls", text)).chain(warnings).collect()
        }
    };
    options.pairs.iter().flat_map(examine).collect()
}

fn warnings(pair: &TlsPair, identity: &Identity) -> Vec<String> {
    let unusual = identity.warning.map(|warning| format!("{} {warning}", pair.certificate));
    let until = identity.valid_until;
    let expires = (until < now_seconds() + EXPIRY_NOTICE_SECONDS).then(|| {
        let until = identity::date(until);
        format!("{} expires at {until}: is its renewal set up?", pair.certificate)
    });
    unusual.into_iter().chain(expires).collect()
}

fn now_seconds() -> i64 {
    i64::try_from(unix_seconds()).unwrap_or(i64::MAX)
}

fn rotation_seconds() -> u64 {
    u64::from(TICKET_LIFETIME_SECONDS) / (TICKET_KEYS as u64 - 1)
}

/// Keys that are derived from a secret change at the same time on all nodes.
fn next_rotation(options: &TlsOptions, now: u64) -> u64 {
    let period = rotation_seconds();
    match options.ticket_secret {
        Some(_) => (now / period + 1) * period,
        None => now + period,
    }
}

/// The key of this period, which seals, then those of the periods in which tickets that are still valid were sealed,
/// and that of the next period, for a node whose clock is ahead.
fn shared_keys(secret: &MaskedText, now: u64) -> Vec<TicketKey> {
    let period = now / rotation_seconds();
    let earlier = (1..TICKET_KEYS as u64).map(|ago| period.saturating_sub(ago));
    let periods = std::iter::once(period).chain(earlier).chain([period + 1]);
    periods.filter_map(|period| TicketKey::derived(secret.0.as_bytes(), period)).collect()
}

fn identities(options: &TlsOptions) -> Result<Vec<Identity>, Vec<String>> {
    let (mut identities, mut problems) = (Vec::new(), Vec::new());
    for pair in &options.pairs {
        match identity(pair, options) {
            Ok(identity) => identities.push(identity),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() { Ok(identities) } else { Err(problems) }
}

fn identity(pair: &TlsPair, options: &TlsOptions) -> Result<Identity, String> {
    let TlsPair { certificate, key } = pair;
    let read = |path: &str, option: &str| {
        read_file(path).map_err(|error| {
            format!(
                "{path} cannot be read: {error}. {option} names it; does the file exist, and may the user of this \
                 process read it?"
            )
        })
    };
    let (certificates, key_text) =
        (read(certificate, "RINGVERB_TLS_CERT")?, read(key, "RINGVERB_TLS_KEY")?);
    let passphrase = options.passphrase.as_ref().map(|passphrase| passphrase.0.as_str());
    let identity = Identity::read(&certificates, &key_text, passphrase);
    let identity =
        identity.and_then(|identity| identity.check_dates(now_seconds()).map(|()| identity));
    identity.map_err(|error| format!("{certificate} with {key}: {error}"))
}

/// # Errors
/// When it cannot be read. Bytes beyond `FILE_BYTES_MAX` are left out, and the PEM then has no end.
pub(super) fn read_file(path: &str) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn stamps(options: &TlsOptions) -> Stamps {
    let paths = options.pairs.iter().flat_map(|pair| [&pair.certificate, &pair.key]);
    let stamp = |path: &String| {
        let found = fs::metadata(path).ok()?;
        Some(FileStamp {
            device: found.dev(),
            inode: found.ino(),
            bytes: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
        })
    };
    paths.map(stamp).collect()
}

fn new_ticket_key() -> Result<TicketKey, String> {
    let mut bytes = [0; TICKET_KEY_BYTES];
    match getrandom::fill(&mut bytes) {
        Ok(()) => Ok(TicketKey::of_bytes(bytes)),
        Err(error) => {
            Err(format!("the kernel returned no random numbers for ticket keys: {error}"))
        }
    }
}

fn fill_random(bytes: &mut [u8]) -> bool {
    getrandom::fill(bytes).is_ok()
}

fn new_acceptor_link(
    identities: Vec<Identity>,
    ticket_keys: Vec<TicketKey>,
) -> Result<Arc<AcceptorLink>, String> {
    let config: Arc<ServerConfig> = identity::acceptor(identities, &ticket_keys, fill_random)
        .map_err(|error| format!("the TLS library refuses the certificates: {error}"))?;
    Ok(AcceptorLink::new(Acceptor { config, ticket_keys }))
}
