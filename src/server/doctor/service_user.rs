//! Whether the user of the service can read the files of the configuration, if root asks.
//!
//! Root can read every file, so `sudo ringverb check` would find nothing wrong with a key that only root can read. The
//! unit of systemd names the user (`service_user/unit.rs`). A thread takes the identity of that user and opens each
//! file, so the kernel decides, with access lists and the rights of folders. It also asks whether the user can make
//! files beside the apps file. Reads `/etc/passwd`, `/etc/group` and `/etc/nsswitch.conf`. Does not start a program,
//! and does not know other services or the unit's sandbox. Owns no state.
//! Limits: the files of one configuration; a unit with a specifier (`%`), a user that `/etc/passwd` does not have, and
//! a pipe are not examined. Cost: once in a command, a few small files and one thread.

mod unit;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use rustix::process::{Gid, Uid, geteuid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use self::unit::{UNIT, UNIT_FOLDERS, UnitUser, unit_texts};
use super::finding::{Finding, Verdict};
use crate::config::options::OptionId;
use crate::config::{Config, Merged, is_read_once};

#[derive(Clone, Debug, PartialEq, Eq)]
struct UserIdentity {
    user: u32,
    group: u32,
    supplementary_groups: Vec<u32>,
}

/// What the service reads and writes, by absolute paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct ServiceFiles {
    read: Vec<PathBuf>,
    /// They can be read once only, so a second look would wait for a writer, or find the pipe of another process.
    pipes: Vec<PathBuf>,
    /// A change of an app makes a file in it.
    apps_folder: Option<PathBuf>,
}

/// What the user cannot do.
#[derive(Debug, Default)]
struct RefusedAccess {
    read: Vec<(PathBuf, io::Error)>,
    apps_folder: Option<(PathBuf, io::Error)>,
}

/// About the files that this command has read, the certificates and the apps file. Empty if there is nothing to
/// examine: this user is not root, or the service has another configuration.
pub(in crate::server) fn examine_files(merged: &Merged, config: &Config) -> Vec<Finding> {
    if !geteuid().is_root() {
        return Vec::new();
    }
    let pairs = config.tls.iter().flat_map(|tls| &tls.pairs);
    let of_tls = pairs.flat_map(|pair| [pair.certificate.clone(), pair.key.clone()]);
    let read = merged.files.read.iter().cloned().chain(of_tls);
    let apps_file = merged.server.get(OptionId::AppsFile).map(|given| given.value.as_str());
    let apps_file = apps_file.filter(|path| !path.is_empty());
    let folder = Path::new(&merged.files.folder);
    let files = ServiceFiles::of(folder, read, apps_file);
    let unit = unit_texts(UNIT_FOLDERS.map(Path::new).as_slice());
    match unit.as_deref().and_then(UnitUser::parse) {
        Some(unit) if files.are_of(&unit, folder) => examine(&unit, files),
        _ => Vec::new(),
    }
}

impl ServiceFiles {
    /// `folder`: the working directory of this command, to which the files are relative.
    fn of(folder: &Path, read: impl Iterator<Item = String>, apps_file: Option<&str>) -> Self {
        let apps_file = apps_file.map(|file| folder.join(file));
        // The first change makes it, so it need not exist. If it is a link, the file that it leads to is replaced.
        let exists = apps_file.clone().filter(|path| path.symlink_metadata().is_ok());
        let all = read.map(|file| folder.join(file)).chain(exists);
        let (pipes, read) = all.partition(|path: &PathBuf| is_read_once(path));
        let apps_folder = apps_file
            .and_then(|path| fs::canonicalize(&path).unwrap_or(path).parent().map(Path::to_owned));
        Self { read, pipes, apps_folder }
    }

    /// Whether the service starts in this folder, or reads one of these files.
    fn are_of(&self, unit: &UnitUser, folder: &Path) -> bool {
        let has_files = !self.read.is_empty() || !self.pipes.is_empty();
        // A deployment may lead there by a link: `/srv/app/current`.
        let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let its_folder = real(&unit.folder);
        let is_its = |path: &Path| real(path).starts_with(&its_folder);
        has_files && (is_its(folder) || self.read.iter().any(|file| is_its(file)))
    }
}

fn examine(unit: &UnitUser, files: ServiceFiles) -> Vec<Finding> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let user = &unit.user;
    let not_examined = |why: &str| {
        let text = format!(
            "whether user {user} of {UNIT} can read the configuration was not examined: {why}"
        );
        vec![Finding::new(Verdict::Note, "files", text)]
    };
    let pipes = files.pipes.clone();
    match UserIdentity::find(unit, &read("/etc/passwd"), &read("/etc/group")) {
        Err(why) => not_examined(&why),
        Ok(identity) => match identity.try_files(files) {
            Err(error) => not_examined(&error.to_string()),
            Ok(refused) => findings(
                user,
                &refused,
                &pipes,
                &further_group_sources(&read("/etc/nsswitch.conf")),
            ),
        },
    }
}

/// `group_sources`: where groups of the user may come from that this process does not know.
fn findings(
    user: &str,
    refused: &RefusedAccess,
    pipes: &[PathBuf],
    group_sources: &[&str],
) -> Vec<Finding> {
    let finding = |verdict, text| Finding::new(verdict, "files", text);
    let mut found = Vec::new();
    if let [first, ..] = pipes {
        let text = format!(
            "{} is a pipe, so whether user {user} of {UNIT} can read its content was not examined",
            first.display()
        );
        found.push(finding(Verdict::Note, text));
    }
    let (by_group, unreadable): (Vec<_>, Vec<_>) = refused
        .read
        .iter()
        .partition(|(path, _)| !group_sources.is_empty() && has_rights_of_groups(path));
    let list = |files: &[&(PathBuf, io::Error)]| {
        let texts = files.iter().map(|(path, error)| format!("{} ({error})", path.display()));
        texts.collect::<Vec<_>>().join(", ")
    };
    if !unreadable.is_empty() {
        let text = format!(
            "user {user} of {UNIT} cannot read {}, so the service does not start, although root can read it: give the \
             file to a group of this user (chgrp) with chmod 640, and let the user enter its folders",
            list(&unreadable)
        );
        found.push(finding(Verdict::Problem, text));
    }
    if !by_group.is_empty() {
        let text = format!(
            "user {user} of {UNIT} cannot read {} with the groups of /etc/group; groups of {} \
             (/etc/nsswitch.conf) were not examined",
            list(&by_group),
            group_sources.join(" and ")
        );
        found.push(finding(Verdict::Note, text));
    }
    if let Some((folder, error)) = &refused.apps_folder {
        let text = format!(
            "user {user} of {UNIT} cannot make files in {} ({error}), so changes of apps at run time are refused: give \
             the folder to this user (chown), or set RINGVERB_APPS_FILE to a file in a folder of this user",
            folder.display()
        );
        found.push(finding(Verdict::Warning, text));
    }
    if found.is_empty() {
        let text = format!("user {user} of {UNIT} can read the configuration");
        found.push(finding(Verdict::Good, text));
    }
    found
}

/// Whether membership in a group would give a right to the file, or to a folder on the way, that others do not have.
fn has_rights_of_groups(path: &Path) -> bool {
    path.ancestors().any(|path| {
        fs::metadata(path).is_ok_and(|found| {
            let (of_group, of_others) = (found.mode() >> 3 & 0o7, found.mode() & 0o7);
            of_group & !of_others != 0
        })
    })
}

/// Sources of a user's groups beside `/etc/group` (nsswitch.conf(5)). systemd's have no members on a host of services.
fn further_group_sources(nsswitch: &str) -> Vec<&str> {
    let line_of = |name: &str| nsswitch.lines().find_map(|line| line.trim().strip_prefix(name));
    let line = line_of("initgroups:").or_else(|| line_of("group:")).unwrap_or_default();
    let line = line.split('#').next().unwrap_or_default();
    // Actions stand in brackets: `[NOTFOUND=return]`.
    let outside = line.split('[').map(|part| part.rsplit(']').next().unwrap_or_default());
    let local = ["files", "compat", "systemd"];
    outside.flat_map(str::split_whitespace).filter(|source| !local.contains(source)).collect()
}

impl UserIdentity {
    /// `passwd` and `group`: the content of the files of these names in `/etc`.
    ///
    /// # Errors
    /// What these files do not have.
    fn find(unit: &UnitUser, passwd: &str, group: &str) -> Result<Self, String> {
        let entry_of = |text: &str, name: &str| -> Option<Vec<String>> {
            let entries = text.lines().map(|line| line.split(':').map(str::to_owned).collect());
            let is_it = |entry: &Vec<String>| {
                [0, 2].iter().any(|field| entry.get(*field).is_some_and(|text| text == name))
            };
            entries.into_iter().find(is_it)
        };
        let no_user = || format!("user {} is not in /etc/passwd", unit.user);
        let number = |entry: &[String], field: usize| entry.get(field)?.parse::<u32>().ok();
        let group_id = |name: &String| {
            let id = entry_of(group, name).and_then(|entry| number(&entry, 2));
            id.ok_or_else(|| format!("group {name} of {UNIT} is not in /etc/group"))
        };
        let entry = entry_of(passwd, &unit.user).ok_or_else(no_user)?;
        let of_user = group.lines().filter_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let is_member = fields
                .get(3)?
                .split(',')
                .any(|member| entry.first().is_some_and(|name| name == member));
            is_member.then(|| fields.get(2)?.parse::<u32>().ok())?
        });
        let of_unit = unit.supplementary_groups.iter().map(group_id);
        Ok(Self {
            user: number(&entry, 2).ok_or_else(no_user)?,
            group: match &unit.group {
                Some(name) => group_id(name)?,
                None => number(&entry, 3).ok_or_else(no_user)?,
            },
            supplementary_groups: of_user.map(Ok).chain(of_unit).collect::<Result<_, _>>()?,
        })
    }

    /// Linux has the identity by thread, so the thread that takes it ends with it.
    ///
    /// # Errors
    /// When this process may not take the identity, as in a container without that capability.
    fn try_files(&self, files: ServiceFiles) -> io::Result<RefusedAccess> {
        let identity = self.clone();
        let run = move || -> io::Result<RefusedAccess> {
            let groups: Vec<Gid> =
                identity.supplementary_groups.iter().map(|group| Gid::from_raw(*group)).collect();
            set_thread_groups(&groups)?;
            let group = Gid::from_raw(identity.group);
            set_thread_res_gid(group, group, group)?;
            let user = Uid::from_raw(identity.user);
            set_thread_res_uid(user, user, user)?;
            let opened = files.read.into_iter().map(|file| (File::open(&file).err(), file));
            let all = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
            let refused_in = |folder: PathBuf| {
                access(&folder, all).err().map(|error| (folder, io::Error::from(error)))
            };
            Ok(RefusedAccess {
                read: opened.filter_map(|(error, file)| Some((file, error?))).collect(),
                apps_folder: files.apps_folder.and_then(refused_in),
            })
        };
        let thread = std::thread::Builder::new().name("service-user".to_owned()).spawn(run)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("its thread has ended")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::tests::TestFolder;
    use std::os::unix::fs::{PermissionsExt, chown};

    const PASSWD: &str = "root:x:0:0::/root:/bin/sh\nwww-data:x:33:33::/var/www:/bin/false\n";
    const GROUP: &str = "root:x:0:\nwww-data:x:33:\nssl-cert:x:110:other,www-data\nmore:x:120:\n";

    fn unit(text: &str) -> Option<UnitUser> {
        UnitUser::parse(&[text.to_owned()])
    }

    #[test]
    fn groups_of_the_user_and_of_the_unit_count() {
        let find = |text: &str| {
            let unit = unit(&format!("WorkingDirectory=/srv\n{text}")).expect("a user");
            UserIdentity::find(&unit, PASSWD, GROUP)
        };
        let identity = |group, supplementary_groups: &[u32]| {
            Ok(UserIdentity { user: 33, group, supplementary_groups: supplementary_groups.into() })
        };
        assert_eq!(find("User=www-data"), identity(33, &[110]));
        assert_eq!(
            find("User=33\nGroup=more\nSupplementaryGroups=120"),
            identity(120, &[110, 120])
        );
        for (text, missing) in [
            ("User=stranger", "user stranger is not in /etc/passwd"),
            ("User=33\nGroup=ldap", "group ldap of ringverb.service is not in /etc/group"),
            (
                "User=33\nSupplementaryGroups=ldap",
                "group ldap of ringverb.service is not in /etc/group",
            ),
        ] {
            assert_eq!(find(text), Err(missing.to_owned()), "{text}");
        }
    }

    /// A folder and files in it, for a user who owns none of them. Only root can take the identity of that user, so
    /// other users do not run these tests.
    struct OfRoot {
        folder: TestFolder,
        identity: UserIdentity,
    }

    impl OfRoot {
        fn make() -> Option<Self> {
            let identity = UserIdentity { user: 33, group: 33, supplementary_groups: vec![110] };
            let made = Self { folder: TestFolder::new(), identity };
            made.set_mode("", 0o755);
            geteuid().is_root().then_some(made)
        }

        fn set_mode(&self, name: &str, mode: u32) {
            fs::set_permissions(self.folder.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }

        fn file(&self, name: &str, mode: u32) -> String {
            fs::write(self.folder.join(name), "").unwrap();
            self.set_mode(name, mode);
            name.to_owned()
        }

        fn find(&self, read: &[String], apps_file: Option<&str>, sources: &[&str]) -> Vec<Finding> {
            let files = ServiceFiles::of(&self.folder, read.iter().cloned(), apps_file);
            let pipes = files.pipes.clone();
            findings("www-data", &self.identity.try_files(files).unwrap(), &pipes, sources)
        }
    }

    fn verdicts(findings: &[Finding]) -> Vec<Verdict> {
        findings.iter().map(|finding| finding.verdict).collect()
    }

    #[test]
    fn a_file_that_only_root_can_read_is_a_problem_for_the_user_of_the_service() {
        let Some(of_root) = OfRoot::make() else { return };
        let modes = [("open", 0o644), ("of-group", 0o640), ("key", 0o600)];
        let files = modes.map(|(name, mode)| of_root.file(name, mode));
        chown(of_root.folder.join("of-group"), None, Some(110)).unwrap();
        let found = of_root.find(&files, None, &[]);
        assert_eq!(verdicts(&found), [Verdict::Problem]);
        let text = &found[0].text;
        assert!(text.contains("/key (Permission denied (os error 13)), so"), "{text}");
        assert!(!text.contains("open (") && !text.contains("of-group"), "{text}");
        of_root.set_mode("", 0o700);
        let found = of_root.find(&files, None, &[]);
        assert_eq!(found[0].text.matches("os error 13").count(), 3, "it cannot enter");
        assert!(fs::read_dir(&of_root.folder).is_ok(), "this thread is root as before");
        of_root.set_mode("", 0o755);
        assert_eq!(verdicts(&of_root.find(&files[..2], None, &[])), [Verdict::Good]);
    }

    #[test]
    fn the_apps_file_must_be_readable_and_its_folder_writable_for_the_user_of_the_service() {
        let Some(of_root) = OfRoot::make() else { return };
        let env = of_root.file(".env", 0o644);
        let find = |apps| of_root.find(std::slice::from_ref(&env), Some(apps), &[]);
        let found = find("apps.toml");
        assert_eq!(verdicts(&found), [Verdict::Warning], "it need not exist");
        assert!(found[0].text.contains("cannot make files in"), "{}", found[0].text);
        of_root.file("apps.toml", 0o600);
        assert_eq!(verdicts(&find("apps.toml")), [Verdict::Problem, Verdict::Warning]);
        fs::create_dir(of_root.folder.join("own")).unwrap();
        chown(of_root.folder.join("own"), Some(33), None).unwrap();
        of_root.file("own/apps.toml", 0o644);
        assert_eq!(verdicts(&find("own/apps.toml")), [Verdict::Good]);
        // What a change replaces is the file that the link leads to.
        std::os::unix::fs::symlink("own/apps.toml", of_root.folder.join("link.toml")).unwrap();
        assert_eq!(verdicts(&find("link.toml")), [Verdict::Good]);
    }

    /// To open a pipe would wait for a writer, and `<(command)` makes one of this process only.
    #[test]
    fn a_pipe_is_not_opened_and_is_no_problem() {
        let Some(of_root) = OfRoot::make() else { return };
        let pipe = of_root.folder.join("config.fifo");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        let found = of_root.find(&["config.fifo".to_owned()], None, &[]);
        assert_eq!(verdicts(&found), [Verdict::Note]);
        assert!(found[0].text.contains("config.fifo is a pipe"), "{}", found[0].text);
    }

    #[test]
    fn a_file_of_a_group_is_a_note_where_groups_have_sources_that_are_not_known() {
        let Some(of_root) = OfRoot::make() else { return };
        let files = [of_root.file("of-group", 0o640)];
        assert_eq!(verdicts(&of_root.find(&files, None, &[])), [Verdict::Problem]);
        let found = of_root.find(&files, None, &["sss"]);
        assert_eq!(verdicts(&found), [Verdict::Note]);
        assert!(found[0].text.contains("groups of sss"), "{}", found[0].text);
        let files = [of_root.file("key", 0o600)];
        let found = of_root.find(&files, None, &["sss"]);
        assert_eq!(verdicts(&found), [Verdict::Problem], "no group can read it");
        for (text, sources) in [
            ("group: files systemd\n", &[][..]),
            ("passwd: files sss\n group:  files [SUCCESS=merge] sss # x\n", &["sss"]),
            (
                "group: files [!UNAVAIL=return SUCCESS=continue] ldap winbind\n",
                &["ldap", "winbind"],
            ),
            ("group: files sss\ninitgroups: files\n", &[]),
            ("", &[]),
        ] {
            assert_eq!(further_group_sources(text), sources, "{text}");
        }
    }

    /// The service has another configuration, if neither its folder nor a file of its folder is read.
    #[test]
    fn files_are_examined_only_if_they_are_those_of_the_service() {
        let unit = unit("User=www-data\nWorkingDirectory=/srv/app\n").expect("a user");
        let uses = |folder: &str, file: &str| {
            let files = ServiceFiles::of(Path::new(folder), [file.to_owned()].into_iter(), None);
            files.are_of(&unit, Path::new(folder))
        };
        assert!(uses("/srv/app", ".env") && uses("/root", "/srv/app/.env"));
        assert!(!uses("/root", ".env") && !uses("/srv", ".env"));
        assert!(!ServiceFiles::default().are_of(&unit, Path::new("/srv/app")), "nothing was read");
    }

    #[test]
    fn the_folder_of_the_service_may_be_a_link() {
        let folder = TestFolder::new();
        fs::create_dir_all(folder.join("releases/1")).unwrap();
        std::os::unix::fs::symlink("releases/1", folder.join("current")).unwrap();
        let text = format!("User=www-data\nWorkingDirectory={}/current\n", folder.display());
        let unit = unit(&text).expect("a user");
        for (release, is_its) in [("current", true), ("releases/1", true), ("releases", false)] {
            let files =
                ServiceFiles::of(&folder.join(release), [".env".to_owned()].into_iter(), None);
            assert_eq!(files.are_of(&unit, &folder.join(release)), is_its, "{release}");
        }
    }
}
