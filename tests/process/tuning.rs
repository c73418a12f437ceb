//! The scripts of `tuning/` on a host whose kernel settings are files of the test.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// A folder with kernel settings, which goes with its owner.
struct Host(PathBuf);

/// Kernel settings as files below a folder.
pub(crate) fn write_settings(folder: &Path, settings: &[(&str, &str)]) {
    for (name, value) in settings {
        let file = folder.join(name.replace('.', "/"));
        fs::create_dir_all(file.parent().expect("a folder")).expect("made");
        fs::write(file, value).expect("written");
    }
}

impl Host {
    fn new(settings: &[(&str, &str)]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tuning-{}-{number}", std::process::id());
        let host = Self(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name));
        write_settings(&host.0.join("sys"), settings);
        host
    }

    fn setting(&self, name: &str) -> PathBuf {
        self.0.join("sys").join(name.replace('.', "/"))
    }

    fn values(&self, settings: &[(&str, &str)]) -> BTreeMap<String, String> {
        let values = settings.iter().map(|(name, _)| {
            let value = fs::read_to_string(self.setting(name)).expect("a setting");
            ((*name).to_owned(), value.trim_end().to_owned())
        });
        values.collect()
    }

    /// Exit code and standard output of a script.
    fn run(&self, script: &str, arguments: &[&str]) -> (Option<i32>, String) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tuning").join(script);
        let mut command = Command::new("bash");
        command.arg(script).args(arguments).env("SYSCTL_ROOT", self.0.join("sys"));
        command.env("STATE_FILE", self.state()).env("INSTALLED", self.installed());
        let output = command.output().expect("bash");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn state(&self) -> PathBuf {
        self.0.join("state/old-values")
    }

    fn installed(&self) -> PathBuf {
        self.0.join("etc/99-ringverb.conf")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Left over, it does no harm: it is below the target folder.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_check_of_a_host_fails_only_for_settings_that_the_server_needs() {
    let (code, help) = Host::new(&[]).run("check.sh", &["--help"]);
    assert!(code == Some(0) && help.starts_with("usage: "), "{help}");
    let settings = [
        ("fs.nr_open", "20000"),
        ("fs.file-max", "99999999999999999999"),
        ("net.core.somaxconn", "128"),
        ("net.ipv4.ip_local_port_range", "1024\t65535"),
        ("net.ipv4.tcp_rmem", "4096 131072 33554432"),
        ("net.ipv4.tcp_wmem", "4096 16384 65536"),
    ];
    let (code, report) = Host::new(&settings).run("check.sh", &["--connections", "20000"]);
    assert_eq!(code, Some(1), "{report}");
    assert!(report.contains("too low for 20,000 connections"), "{report}");
    assert!(report.contains("locked memory of "), "{report}");
    for (name, word) in [
        ("fs.nr_open", "FAIL"),
        ("fs.file-max", "pass"),
        ("net.core.somaxconn", "note"),
        ("net.ipv4.ip_local_port_range", "pass"),
        ("net.ipv4.tcp_rmem", "pass"),
        ("net.ipv4.tcp_wmem", "note"),
        ("net.netfilter.nf_conntrack_max", "skip"),
    ] {
        let line = report.lines().find(|line| line.split_whitespace().nth(1) == Some(name));
        assert!(line.is_some_and(|line| line.starts_with(word)), "{name} {word}\n{report}");
    }
}

/// A host that lacks some, has more of others, and has no conntrack.
pub(crate) const FOUND: &[(&str, &str)] = &[
    ("fs.nr_open", "20000"),
    ("fs.file-max", "99999999999999999999"),
    ("net.core.somaxconn", "128"),
    ("net.ipv4.tcp_max_syn_backlog", "8192"),
    ("net.ipv4.ip_local_port_range", "32768\t60999"),
    ("net.ipv4.tcp_rmem", "4096\t131072\t6291456"),
    ("net.ipv4.tcp_wmem", "4096\t16384\t4194304"),
];

#[test]
fn applied_settings_pass_the_check_and_are_reverted_to_the_earlier_values() {
    let host = Host::new(FOUND);
    let found = host.values(FOUND);
    let (code, shown) = host.run("apply.sh", &["--dry-run"]);
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("5 settings would change"), "{shown}");
    assert_eq!((host.values(FOUND), host.state().exists()), (found.clone(), false));

    let (code, shown) = host.run("apply.sh", &[]);
    assert!(code == Some(0) && shown.contains("5 settings changed"), "{shown}");
    let applied = host.values(FOUND);
    for (name, value) in [
        ("fs.nr_open", "1048576"),
        ("fs.file-max", "99999999999999999999"),
        ("net.core.somaxconn", "4096"),
        ("net.ipv4.ip_local_port_range", "10240 65535"),
        ("net.ipv4.tcp_wmem", "4096 16384 1048576"),
    ] {
        assert_eq!(applied[name], value, "{name}");
    }
    let installed = fs::read_to_string(host.installed()).expect("the file for the next boot");
    assert!(installed.contains("net.ipv4.tcp_wmem = 4096 16384 1048576\n"), "{installed}");
    assert!(!installed.contains("file-max") && installed.lines().count() == 5, "{installed}");

    // A second run changes nothing, and does not take ours for theirs.
    let (code, shown) = host.run("apply.sh", &[]);
    assert!(code == Some(0) && shown.contains("Nothing to change."), "{shown}");
    let (_, report) = host.run("check.sh", &["--connections", "1000"]);
    for (name, _) in FOUND {
        let line = report.lines().find(|line| line.split_whitespace().nth(1) == Some(name));
        assert!(line.is_some_and(|line| line.starts_with("pass")), "{name}\n{report}");
    }

    let (code, shown) = host.run("revert.sh", &["--dry-run"]);
    assert_eq!((code, host.values(FOUND)), (Some(0), applied), "{shown}");
    let (code, shown) = host.run("revert.sh", &[]);
    assert!(code == Some(0) && shown.contains("Reverted."), "{shown}");
    // The kernel separates numbers by tabs, and takes blanks.
    let as_words = |values: BTreeMap<String, String>| -> Vec<Vec<String>> {
        values.values().map(|it| it.split_whitespace().map(str::to_owned).collect()).collect()
    };
    assert_eq!(as_words(host.values(FOUND)), as_words(found));
    assert!(!host.state().exists() && !host.installed().exists());
    let (code, shown) = host.run("revert.sh", &[]);
    assert!(code == Some(0) && shown.contains("Nothing to undo"), "{shown}");
}

#[test]
fn a_setting_that_the_kernel_lacks_ends_the_change_and_can_be_reverted() {
    let host = Host::new(&FOUND[..2]);
    let found = host.values(&FOUND[..2]);
    let (code, shown) = host.run("apply.sh", &[]);
    assert_eq!(code, Some(2), "{shown}");
    assert_eq!(host.values(FOUND.get(..1).expect("one"))["fs.nr_open"], "1048576");
    assert_eq!(host.run("revert.sh", &[]).0, Some(0));
    assert_eq!(host.values(&FOUND[..2]), found);
}
