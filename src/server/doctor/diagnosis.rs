//! `ringverb doctor` as text and as JSON: everything that `check` finds, the host's limits (`host.rs`), the rights in
//! Redis (`rights.rs`), each with a command that shows or changes it.
//!
//! Owns no state: which command belongs to which finding, and that a server that runs already is no problem, because
//! that is what a doctor is usually asked about. A wrong configuration does not end the examination: the host is looked
//! at anyway. Never changes anything, and runs none of the commands.
//! Limit: a finding for each probe and each endpoint of webhooks, of which `doctor/mod.rs` asks `ENDPOINTS_MAX`. Cost:
//! once in a command: the probes of `check`, one file of /proc for each setting, one more connection to Redis.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;

use rustix::process::{Resource, getrlimit};

use super::finding::{Diagnosis, Finding, STEP_TIME, Verdict};
use super::host::{self, HostFiles, HostNeeds};
use super::serving::{self, RunningServer};
use super::{examine, rights, service_user};
use crate::config::admin::AdminPlace;
use crate::config::{Config, Merged};
use crate::limits::DESCRIPTORS_MAX;
use crate::pusher::json::write_string;
use crate::server::resources::Resources;

#[derive(Debug)]
pub(in crate::server) struct DoctorReport {
    connections: u64,
    findings: Vec<Diagnosis>,
}

/// A wrong configuration is a finding. The host is examined all the same.
pub(in crate::server) fn diagnose(
    merged: &Merged,
    built: Result<Config, Vec<String>>,
    connections: u64,
) -> DoctorReport {
    let mut findings: Vec<Diagnosis> = merged
        .warnings
        .iter()
        .chain(&merged.migration_warnings)
        .map(|text| Diagnosis::new(Verdict::Warning, "configuration", text, CHECK_COMMAND))
        .collect();
    let mut wanted = HostNeeds {
        connections,
        workers: 1,
        descriptors_max: getrlimit(Resource::Nofile).maximum.unwrap_or(DESCRIPTORS_MAX),
        memory_max: None,
        has_tls: false,
        server_process: None,
    };
    match built {
        Err(problems) => {
            // Without a valid configuration there is one worker for each CPU.
            let cpus = std::thread::available_parallelism().map_or(1, usize::from);
            wanted.workers = cpus as u64;
            let problem =
                |text| Diagnosis::new(Verdict::Problem, "configuration", text, CHECK_COMMAND);
            findings.extend(problems.into_iter().map(problem));
        }
        Ok(mut config) => {
            if findings.is_empty() {
                let text = format!("valid, from {}", config.source);
                findings.push(Diagnosis::new(Verdict::Good, "configuration", text, CHECK_COMMAND));
            }
            let shares = Resources::of_this_process().fill_in(&mut config);
            wanted.workers = config.workers as u64;
            wanted.memory_max = config.memory_max;
            wanted.has_tls = config.tls.is_some();
            // The limit of descriptors is found for each worker below.
            let own = examine(&config, &shares).into_iter().filter(|found| found.what != "limits");
            let own: Vec<Finding> = own.collect();
            let servers = Servers::in_the_way(&own, &config);
            wanted.server_process = servers.port.and_then(|server| server.process);
            let files = service_user::examine_files(merged, &config);
            let own = files.into_iter().chain(own);
            findings.extend(own.map(|finding| with_command(finding, &config, servers)));
            let rights = config.scaling.as_ref().and_then(|at| rights::examine(at, STEP_TIME));
            findings.extend(rights.map(|finding| with_command(finding, &config, servers)));
            if !findings.iter().any(|found| found.what == "clock") {
                let text = "no other machine was there to compare the clock with";
                findings.push(Diagnosis::new(Verdict::Good, "clock", text, CLOCK_COMMAND));
            }
        }
    }
    findings.extend(host::examine(&HostFiles::below(Path::new("/proc")), wanted));
    DoctorReport { connections, findings }
}

const CHECK_COMMAND: &str = "ringverb check --all";
const CLOCK_COMMAND: &str = "timedatectl";

/// The servers that keep the configured one from starting.
#[derive(Clone, Copy, Debug)]
struct Servers {
    port: Option<RunningServer>,
    admin: Option<RunningServer>,
}

impl Servers {
    /// A server is looked for only if a finding says that its place is in use, because the look asks over the network.
    fn in_the_way(findings: &[Finding], config: &Config) -> Self {
        let is_used = |what| {
            findings.iter().any(|found| found.what == what && found.verdict != Verdict::Good)
        };
        let port = if is_used("port") { serving::at_port(config) } else { None };
        let place = &config.admin.place;
        let admin = if is_used("admin") { serving::at_admin(place, port) } else { None };
        Self { port, admin }
    }
}

/// A finding of a check, for a host on which the server may run already.
fn with_command(finding: Finding, config: &Config, servers: Servers) -> Diagnosis {
    let Finding { verdict, what, text } = finding;
    let (server, at, command) = match what {
        "port" => {
            let address = SocketAddr::new(config.host, config.port);
            (servers.port, address.to_string(), listeners_command(address))
        }
        "admin" => {
            let place = &config.admin.place;
            let command = match place {
                AdminPlace::Tcp(address) => listeners_command(*address),
                AdminPlace::Unix(path) => format!("ls -l {}", path.display()),
                AdminPlace::Off => "ls -l /run".to_owned(),
            };
            (servers.admin, place.to_string(), command)
        }
        _ => (None, String::new(), String::new()),
    };
    if let Some(server) = server {
        let reason = format!("{at} is served by {server}");
        return Diagnosis::new(Verdict::Good, what, reason, command);
    }
    let command = match what {
        "port" | "admin" => command,
        "tls" => certificate_command(config),
        "kernel" => "sysctl kernel.io_uring_disabled".to_owned(),
        "locked" => "ulimit -Hl".to_owned(),
        "workers" => "nproc".to_owned(),
        "memory" => "free -m".to_owned(),
        "redis" => config.scaling.as_ref().map_or_else(String::new, |redis| {
            format!("redis-cli -h {} -p {} ping", redis.host, redis.port)
        }),
        "rights" => config.scaling.as_ref().map_or_else(String::new, |redis| {
            let user = redis.username.as_deref().unwrap_or("default");
            format!("redis-cli -h {} -p {} acl getuser {user}", redis.host, redis.port)
        }),
        "webhook" => "ringverb check".to_owned(),
        "clock" | "ntp" => CLOCK_COMMAND.to_owned(),
        _ => CHECK_COMMAND.to_owned(),
    };
    // The memory limit is not the host's memory.
    let what = if what == "memory" { "memory_max" } else { what };
    Diagnosis::new(verdict, what, text, command)
}

fn listeners_command(at: SocketAddr) -> String {
    format!("ss -ltnp 'sport = :{}'", at.port())
}

fn certificate_command(config: &Config) -> String {
    let first = config.tls.as_ref().and_then(|tls| tls.pairs.first());
    let file = first.map_or("FILE", |pair| pair.certificate.as_str());
    format!("openssl x509 -noout -subject -enddate -in {file}")
}

impl DoctorReport {
    /// A note is left out: what could not be examined (in a container, say) must not fail the exit code.
    pub(in crate::server) fn verdict(&self) -> Verdict {
        let verdicts = self.findings.iter().map(|found| found.verdict);
        verdicts.filter(|verdict| *verdict != Verdict::Note).max().unwrap_or(Verdict::Good)
    }

    /// The smallest number of connections of any finding, because the scarcest resource is the one that stops the
    /// host.
    fn limit(&self) -> Option<(u64, &'static str)> {
        let limits =
            self.findings.iter().filter_map(|found| Some((found.connections?, found.what)));
        limits.min()
    }

    pub(in crate::server) fn text(&self, has_color: bool) -> String {
        let mut text = String::new();
        for Diagnosis { verdict, what, reason, command, .. } in &self.findings {
            let (word, paint) = match verdict {
                Verdict::Good => ("ok", "\x1b[32m"),
                Verdict::Note => ("note", "\x1b[36m"),
                Verdict::Warning => ("warning", "\x1b[33m"),
                Verdict::Problem => ("problem", "\x1b[31m"),
            };
            let (paint, plain) = if has_color { (paint, "\x1b[0m") } else { ("", "") };
            // Writing to a String cannot fail.
            writeln!(text, "{paint}{word:<8}{plain} {what}: {reason}").ok();
            // The command of a good finding shows it, that of another one also changes it, and must not be overlooked.
            let (dim, plain) = match verdict {
                Verdict::Good if has_color => ("\x1b[2m", plain),
                _ => ("", ""),
            };
            // Writing to a String cannot fail.
            writeln!(text, "{dim}         -> {command}{plain}").ok();
        }
        let count = |wanted| self.findings.iter().filter(|found| found.verdict == wanted).count();
        let (problems, warnings) = (count(Verdict::Problem), count(Verdict::Warning));
        // Writing to a String cannot fail.
        writeln!(
            text,
            "\nFor {} connections: problems: {problems}, warnings: {warnings}.",
            self.connections
        )
        .ok();
        if let Some((connections, what)) = self.limit() {
            // Writing to a String cannot fail.
            writeln!(
                text,
                "This host allows about {connections} connections; the limit is {what}."
            )
            .ok();
        }
        text
    }

    pub(in crate::server) fn json(&self) -> String {
        let mut out = Vec::new();
        let connections = self.connections;
        out.extend_from_slice(format!("{{\"connections\":{connections},\"verdict\":").as_bytes());
        write_string(verdict_word(self.verdict()), &mut out);
        out.extend_from_slice(b",\"limit\":");
        match self.limit() {
            None => out.extend_from_slice(b"null"),
            Some((connections, what)) => {
                out.extend_from_slice(
                    format!("{{\"connections\":{connections},\"what\":").as_bytes(),
                );
                write_string(what, &mut out);
                out.push(b'}');
            }
        }
        out.extend_from_slice(b",\"findings\":[");
        for (number, found) in self.findings.iter().enumerate() {
            if number > 0 {
                out.push(b',');
            }
            let texts = [
                ("what", found.what),
                ("verdict", verdict_word(found.verdict)),
                ("reason", &found.reason),
                ("command", &found.command),
            ];
            for (at, (name, value)) in texts.into_iter().enumerate() {
                out.push(if at == 0 { b'{' } else { b',' });
                write_string(name, &mut out);
                out.push(b':');
                write_string(value, &mut out);
            }
            if let Some(connections) = found.connections {
                out.extend_from_slice(format!(",\"connections\":{connections}").as_bytes());
            }
            out.push(b'}');
        }
        out.extend_from_slice(b"]}\n");
        String::from_utf8_lossy(&out).into_owned()
    }
}

fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Good => "good",
        Verdict::Note => "note",
        Verdict::Warning => "warning",
        Verdict::Problem => "problem",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(verdicts: &[Verdict]) -> DoctorReport {
        let finding = |verdict: &Verdict| {
            Diagnosis::new(*verdict, "a", "it \"is\"\n so", "x 'y'")
                .with_connections(*verdict as u64 + 7)
        };
        DoctorReport { connections: 5, findings: verdicts.iter().map(finding).collect() }
    }

    #[test]
    fn the_worst_finding_is_the_verdict_and_the_smallest_limit_counts() {
        assert_eq!(report(&[]).verdict(), Verdict::Good);
        let noted = report(&[Verdict::Good, Verdict::Note]);
        assert_eq!(noted.verdict(), Verdict::Good);
        assert!(noted.text(false).contains("\nnote     a: it"), "{}", noted.text(false));
        assert!(noted.json().contains("\"verdict\":\"note\""), "{}", noted.json());
        let report = report(&[Verdict::Problem, Verdict::Good, Verdict::Warning]);
        assert_eq!((report.verdict(), report.limit()), (Verdict::Problem, Some((7, "a"))));
        let text = report.text(false);
        assert!(text.contains("problem  a: it") && text.contains("-> x 'y'"), "{text}");
        assert_eq!(text.matches("-> x 'y'").count(), 3, "a command for each finding: {text}");
        assert!(text.contains("ok       a: it \"is\"\n so\n         -> x 'y'\n"), "{text}");
        assert!(report.text(true).contains("\x1b[2m         -> x 'y'\x1b[0m\n"));
        assert!(text.contains("problems: 1, warnings: 1") && text.contains("about 7 connections"));
        assert!(!text.contains('\x1b') && report.text(true).contains("\x1b[31mproblem"));
    }

    #[test]
    fn json_has_all_of_it() {
        let report = report(&[Verdict::Good, Verdict::Warning]);
        let object: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!((&object["verdict"], &object["connections"]), (&"warning".into(), &5.into()));
        assert_eq!(object["limit"]["connections"], 7);
        let finding = &object["findings"][1];
        assert_eq!((&finding["what"], &finding["verdict"]), (&"a".into(), &"warning".into()));
        assert_eq!(
            (&finding["reason"], &finding["command"]),
            (&"it \"is\"\n so".into(), &"x 'y'".into())
        );
    }
}
