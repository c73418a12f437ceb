//! `packaging/install.sh` with an archive of this test, on hosts that lack something: each refusal names what is
//! missing and what to do. `tests/packaging/run` installs a real release with it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Content, Finished, Setup, make_program};

/// What the script and the program of the archive call.
const TOOLS: &[&str] = &[
    "cat",
    "comm",
    "cp",
    "dirname",
    "find",
    "getconf",
    "grep",
    "gzip",
    "id",
    "mkdir",
    "mktemp",
    "mv",
    "rm",
    "rmdir",
    "sed",
    "sh",
    "sha256sum",
    "sort",
    "tail",
    "tar",
    "uname",
    "wc",
];

/// An archive as `packaging/release` makes it, and its sum. Its program says its version only.
pub(crate) fn release_archive(folder: &Path) {
    let tree = "ringverb-9.9.9-x86_64-linux";
    let bin = folder.join(tree).join("bin");
    fs::create_dir_all(&bin).expect("a folder");
    fs::create_dir_all(folder.join(tree).join("share/completions")).expect("a folder");
    fs::write(folder.join(tree).join("share/completions/ringverb.bash"), "").expect("a file");
    make_program(&bin.join("ringverb"), Content::Script("#!/bin/sh\necho ringverb 9.9.9\n"));
    let script = format!(
        "tar -czf {tree}.tar.gz {tree} && rm -r {tree} && sha256sum {tree}.tar.gz >SHA256SUMS"
    );
    let mut shell = Command::new("sh");
    let status = shell.args(["-c", &script]).current_dir(folder).status();
    assert!(status.expect("a shell").success());
}

/// A host with some programs, and a release beside them.
struct Host {
    folder: PathBuf,
    /// Owns the folder.
    _setup: Setup,
}

impl Host {
    /// Without one of the tools.
    fn without(missing: &str) -> Self {
        let setup = Setup::bare();
        let folder = setup.path("");
        let host = Self { folder, _setup: setup };
        fs::create_dir_all(host.folder.join("bin")).expect("a folder");
        for tool in TOOLS.iter().filter(|tool| **tool != missing) {
            let program = ["/bin", "/usr/bin"].iter().map(|place| Path::new(place).join(tool));
            let program = program.into_iter().find(|path| path.exists());
            let program = program.unwrap_or_else(|| panic!("this host has no {tool}"));
            symlink(program, host.folder.join("bin").join(tool)).expect("a link");
        }
        release_archive(&host.folder.join("release"));
        host
    }

    fn whole() -> Self {
        Self::without("")
    }

    /// A program that prints this.
    fn saying(self, name: &str, script: &str) -> Self {
        let path = self.folder.join("bin").join(name);
        let _ = fs::remove_file(&path);
        make_program(&path, Content::Script(&format!("#!/bin/sh\n{script}\n")));
        self
    }

    fn run(&self, arguments: &[&str]) -> Finished {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/install.sh");
        let setup = Setup::bare().program(Path::new("/bin/sh"));
        let setup = setup.env("PATH", &self.folder.join("bin").display().to_string());
        let setup = setup.env("HOME", &self.folder.display().to_string());
        setup.arg(&script.display().to_string()).args(arguments).run()
    }

    fn install(&self) -> Finished {
        let from = self.folder.join("release").display().to_string();
        self.run(&["--from", &from, "--prefix", &self.prefix().display().to_string()])
    }

    fn prefix(&self) -> PathBuf {
        self.folder.join("prefix")
    }

    #[track_caller]
    fn refuses(&self, finished: &Finished, parts: &[&str]) {
        assert_eq!(finished.code, Some(1), "{finished:?}");
        for part in parts {
            assert!(finished.stderr.contains(part), "{part}\nnot in\n{finished:?}");
        }
        assert!(!self.prefix().exists(), "something was installed");
    }
}

#[test]
fn an_archive_is_installed_and_removed_with_few_programs() {
    let host = Host::whole();
    let finished = host.install();
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(finished.stdout.contains("ringverb 9.9.9"), "{finished:?}");
    assert!(host.prefix().join("share/bash-completion/completions/ringverb").exists());
    let finished = host.run(&["--uninstall", "--prefix", &host.prefix().display().to_string()]);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    // Empty folders go, but neither the prefix nor what is above it: they may have been there before.
    let left = fs::read_dir(host.prefix()).expect("the prefix stays").count();
    assert_eq!(left, 0, "{finished:?}");
}

#[test]
fn a_missing_program_is_named_with_its_package() {
    for (program, package) in [("tar", "tar"), ("gzip", "gzip"), ("sha256sum", "coreutils")] {
        let host = Host::without(program);
        let text = format!("{program} is missing: install the package {package} (");
        host.refuses(&host.install(), &[&text]);
    }
    let host = Host::whole();
    let finished = host.run(&["--from", "https://releases.test", "--prefix", "/nowhere"]);
    host.refuses(
        &finished,
        &["neither curl nor wget is installed, and https://releases.test is a URL"],
    );
}

#[test]
fn a_host_on_which_the_program_cannot_start_is_told_before_anything_is_fetched() {
    let alpine = "echo 'musl libc (x86_64)' >&2; exit 1";
    let host = Host::without("getconf").saying("ldd", alpine);
    host.refuses(
        &host.install(),
        &["musl instead of glibc, as Alpine has: use the container image"],
    );
    let host = Host::whole().saying("getconf", "echo 'glibc 2.17'");
    host.refuses(&host.install(), &["this host has glibc 2.17, and ringverb needs 2.28"]);
    let host =
        Host::whole().saying("getconf", "exit 1").saying("ldd", "echo 'ldd (GNU libc) 2.34'");
    assert_eq!(host.install().code, Some(0));
    let machine = "case $1 in -m) echo riscv64 ;; *) echo Linux ;; esac";
    let host = Host::whole().saying("uname", machine);
    host.refuses(
        &host.install(),
        &["there is no archive for riscv64, only for x86_64 and aarch64"],
    );
    let host = Host::whole().saying("uname", "case $1 in -m) echo arm64 ;; *) echo Darwin ;; esac");
    host.refuses(&host.install(), &["ringverb runs on Linux, and this is Darwin"]);
    let host =
        Host::whole().saying("uname", "case $1 in -m) echo aarch64 ;; *) echo Linux ;; esac");
    host.refuses(&host.install(), &["SHA256SUMS names no archive for aarch64"]);
}

#[test]
fn without_an_address_or_a_release_there_the_script_says_what_is_missing() {
    let host = Host::whole();
    host.refuses(&host.run(&[]), &["--from URL_OR_FOLDER", "there is no public release yet"]);
    let host = Host::whole()
        .saying("curl", "echo 'curl: (22) The requested URL returned error: 404' >&2; exit 22");
    let finished = host.run(&["--from", "https://releases.test/latest", "--prefix", "/nowhere"]);
    let parts = [
        "returned error: 404",
        "https://releases.test/latest/SHA256SUMS could not be fetched: is there a release",
    ];
    host.refuses(&finished, &parts);
}

#[test]
fn a_damaged_archive_is_refused() {
    let host = Host::whole();
    let archive = host.folder.join("release/ringverb-9.9.9-x86_64-linux.tar.gz");
    let mut bytes = fs::read(&archive).expect("an archive");
    bytes.push(b'x');
    fs::write(&archive, bytes).expect("written");
    host.refuses(&host.install(), &["does not have the sum that SHA256SUMS names"]);
}
