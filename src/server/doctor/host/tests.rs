//! The findings about a host whose /proc is a folder of the test.

use std::path::Path;
use std::process::Command;

use super::*;
use crate::server::tests::TestFolder;

struct Proc(TestFolder);

impl Proc {
    /// A host that is ready for 100,000 connections.
    fn ready() -> Self {
        let proc = Self(TestFolder::new());
        for (path, text) in [
            ("meminfo", "MemTotal: 16384000 kB\nMemAvailable:    8192000 kB\n"),
            ("sys/kernel/io_uring_disabled", "0\n"),
            ("sys/fs/nr_open", "1048576\n"),
            ("sys/fs/file-max", "9223372036854775807\n"),
            ("sys/net/core/somaxconn", "4096\n"),
            ("sys/net/ipv4/tcp_max_syn_backlog", "8192\n"),
            ("sys/net/ipv4/ip_local_port_range", "10240\t65535\n"),
            ("sys/net/ipv4/tcp_rmem", "4096\t16384\t6291456\n"),
            ("sys/net/ipv4/tcp_wmem", "4096\t16384\t4194304\n"),
            ("sys/net/ipv4/tcp_mem", "190000 253000 380000\n"),
            ("sys/net/netfilter/nf_conntrack_max", "1048576\n"),
            ("sys/net/netfilter/nf_conntrack_count", "12\n"),
        ] {
            proc.set(path, text);
        }
        proc
    }

    fn set(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn examine(&self, wanted: HostNeeds) -> Vec<Diagnosis> {
        examine(&HostFiles::below(&self.0), wanted)
    }

    /// What is not good, with this many connections.
    fn faults(&self, connections: u64) -> Vec<(Verdict, &'static str)> {
        let found = self.examine(HostNeeds { connections, ..WANTED_HERE }).into_iter();
        let faults = found.filter(|one| one.verdict != Verdict::Good);
        faults.map(|one| (one.verdict, one.what)).collect()
    }
}

const WANTED_HERE: HostNeeds = HostNeeds {
    connections: 100_000,
    workers: 4,
    descriptors_max: 1_048_576,
    memory_max: None,
    has_tls: false,
    server_process: None,
};

#[test]
fn the_memory_of_a_connection_is_that_of_the_architecture() {
    let text = include_str!("../../../../ARCHITECTURE.md").replace('\n', " ");
    let kernel = KERNEL_BYTES_EACH as f64 / 1_000.0;
    let plan =
        format!("Plan with {PROCESS_BYTES_EACH} B of user memory and {kernel} KB of kernel memory");
    assert!(text.contains(&plan), "{plan}");
}

#[test]
fn a_host_that_is_ready_has_no_fault_and_each_finding_has_a_command() {
    let proc = Proc::ready();
    assert_eq!(proc.faults(100_000), []);
    let found = proc.examine(WANTED_HERE);
    assert!(found.len() >= 12, "{found:?}");
    for one in &found {
        assert!(!one.command.is_empty() && !one.reason.is_empty(), "{one:?}");
    }
    let limit = found.iter().filter_map(|one| Some((one.connections?, one.what))).min();
    // 8,192,000 KiB without 128 MiB, by 5,307 B. The firewall has less.
    assert_eq!(limit, Some((1_047_576, "fs.nr_open")));
    let memory = found.iter().find(|one| one.what == "memory").unwrap();
    assert_eq!(memory.connections, Some((8_192_000 * 1024 - (128 << 20)) / 5_307));
}

#[test]
fn each_limit_is_found_alone() {
    let cases: [(&str, &str, Verdict, &str); 9] = [
        ("meminfo", "MemAvailable: 600000 kB\n", Verdict::Problem, "memory"),
        ("meminfo", "MemAvailable: 1000000 kB\n", Verdict::Warning, "memory"),
        ("sys/kernel/io_uring_disabled", "2\n", Verdict::Warning, "io_uring"),
        ("sys/fs/nr_open", "65536\n", Verdict::Problem, "fs.nr_open"),
        ("sys/fs/file-max", "200000\n", Verdict::Warning, "fs.file-max"),
        ("sys/net/core/somaxconn", "128\n", Verdict::Warning, "net.core.somaxconn"),
        (
            "sys/net/ipv4/ip_local_port_range",
            "32768 60999\n",
            Verdict::Warning,
            "net.ipv4.ip_local_port_range",
        ),
        ("sys/net/ipv4/tcp_mem", "1000 2000 4000\n", Verdict::Warning, "net.ipv4.tcp_mem"),
        ("sys/net/netfilter/nf_conntrack_count", "1000000\n", Verdict::Problem, "conntrack"),
    ];
    for (path, text, verdict, what) in cases {
        let proc = Proc::ready();
        proc.set(path, text);
        assert_eq!(proc.faults(100_000), [(verdict, what)], "{path}");
    }
}

#[test]
fn a_host_without_a_firewall_and_without_files_is_no_panic() {
    let proc = Proc::ready();
    fs::remove_dir_all(proc.0.join("sys/net/netfilter")).unwrap();
    assert_eq!(proc.faults(100_000), []);
    fs::remove_dir_all(proc.0.join("sys")).unwrap();
    let problems: Vec<_> =
        proc.faults(1).into_iter().filter(|(verdict, _)| *verdict == Verdict::Problem).collect();
    assert_eq!(problems, [(Verdict::Problem, "fs.nr_open"), (Verdict::Problem, "fs.file-max")]);
    proc.set("sys/net/ipv4/tcp_mem", "x");
    proc.set("meminfo", "MemAvailable: many\n");
    proc.faults(u64::MAX);
}

#[test]
fn descriptors_of_the_running_server_count_and_otherwise_those_of_this_process() {
    let proc = Proc::ready();
    let found_beside = |descriptors_max: u64, server_process: Option<u32>| {
        let wanted = HostNeeds { descriptors_max, server_process, ..WANTED_HERE };
        let found = proc.examine(wanted).into_iter().next().unwrap();
        (found.verdict, found.connections, found.reason)
    };
    let found = |descriptors_max: u64| found_beside(descriptors_max, None);
    assert_eq!(found(20_000).1, Some(4 * (20_000 - 64)));
    assert_eq!(found(20_000).0, Verdict::Problem);
    assert_eq!(found(26_000).0, Verdict::Warning);
    assert_eq!(found(40_000).0, Verdict::Good);
    let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files  1024  4096  files\n";
    proc.set("4242/limits", limits);
    let (verdict, connections, reason) = found_beside(1_048_576, Some(4242));
    assert_eq!((verdict, connections), (Verdict::Problem, Some(4 * (4_096 - 64))));
    assert!(reason.contains("process 4242"), "{reason}");
    // Another server of the host is not the one at the port.
    for server in [None, Some(4243)] {
        let (verdict, _, reason) = found_beside(1_048_576, server);
        assert!(
            verdict == Verdict::Good && reason.starts_with("a server that is started from here"),
            "{reason}"
        );
    }
}

#[test]
fn a_memory_limit_counts_the_resident_set_only() {
    let proc = Proc::ready();
    let found = |mib: u64| {
        let wanted = HostNeeds { memory_max: Some(mib << 20), ..WANTED_HERE };
        let found = proc.examine(wanted);
        found.into_iter().find(|one| one.what == "memory_limit").unwrap().verdict
    };
    assert_eq!((found(48), found(128)), (Verdict::Problem, Verdict::Good));
}

/// Both read tuning/99-ringverb.conf, and one verdict of a script must not be another one of the program.
#[test]
fn check_sh_judges_the_same_settings_in_the_same_way() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tuning/check.sh");
    for (somaxconn, nr_open) in [(4_096, 1_048_576), (128, 65_536), (1, 101_000)] {
        let proc = Proc::ready();
        proc.set("sys/net/core/somaxconn", &format!("{somaxconn}\n"));
        proc.set("sys/fs/nr_open", &format!("{nr_open}\n"));
        let output = Command::new("bash")
            .arg(&script)
            .args(["--connections", "100000"])
            .env("SYSCTL_ROOT", proc.0.join("sys"))
            .output()
            .expect("bash");
        let text = String::from_utf8(output.stdout).unwrap();
        let found = proc.examine(WANTED_HERE);
        let mut compared = 0;
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            let (Some(verdict), Some(key)) = (words.next(), words.next()) else { continue };
            // The script asks for enough descriptors in each worker, in case that connections do not spread.
            let is_setting = |one: &&Diagnosis| one.what.contains('.') && one.what == key;
            let Some(own) = found.iter().find(is_setting) else { continue };
            let own = match own.verdict {
                Verdict::Good => "pass",
                Verdict::Warning => "note",
                Verdict::Problem => "FAIL",
                Verdict::Note => panic!("a setting can be read: {line}"),
            };
            assert_eq!(own, verdict, "{line}");
            compared += 1;
        }
        assert_eq!(compared, 9, "{text}");
    }
}
