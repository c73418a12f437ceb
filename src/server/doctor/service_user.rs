//! Whether the user of the service can read the files of the configuration, if root asks.
//!
//! Root can read every file, so `sudo ringverb check` would find nothing wrong with a key that only root can read. The
//! unit of systemd names the user. A thread takes the identity of that user and opens each file, so the kernel decides,
//! with access lists and the rights of folders. Reads the unit and its drop-ins, `/etc/passwd` and `/etc/group`. Does
//! not start a program, and does not know other services or the unit's sandbox. Owns no state.
//! Limits: the files of one configuration; a unit with a specifier (`%`) or a user that `/etc/passwd` does not have is
//! not examined. Cost: once in a command, a few small files and one thread.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::process::{Gid, Uid, geteuid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::finding::{Finding, Verdict};
use crate::config::{Config, Merged};

const UNIT: &str = "ringverb.service";
/// Where systemd looks for a unit, the first one counts (systemd.unit(5)).
const UNIT_FOLDERS: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// What a unit says about its process.
#[derive(Debug, Default, PartialEq, Eq)]
struct UnitUser {
    user: String,
    group: Option<String>,
    supplementary_groups: Vec<String>,
    folder: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct UserIdentity {
    user: u32,
    group: u32,
    supplementary_groups: Vec<u32>,
}

/// The files that this command has read, and the certificates. `None` if there is nothing to examine: this user is not
/// root, or the service has another configuration.
pub(in crate::server) fn examine_files(merged: &Merged, config: &Config) -> Option<Finding> {
    let pairs = config.tls.iter().flat_map(|tls| &tls.pairs);
    let of_tls = pairs.flat_map(|pair| [pair.certificate.clone(), pair.key.clone()]);
    let files: Vec<String> = merged.files.read.iter().cloned().chain(of_tls).collect();
    examine(Path::new(&merged.files.folder), &files)
}

/// `folder`: the working directory of this command, to which the files are relative.
fn examine(folder: &Path, files: &[String]) -> Option<Finding> {
    if !geteuid().is_root() {
        return None;
    }
    let unit = UnitUser::parse(&unit_texts(UNIT_FOLDERS.map(Path::new).as_slice())?)?;
    let files: Vec<PathBuf> = files.iter().map(|file| folder.join(file)).collect();
    let is_its_folder = |path: &Path| path.starts_with(&unit.folder);
    if files.is_empty() || !(is_its_folder(folder) || files.iter().any(|file| is_its_folder(file)))
    {
        return None;
    }
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let user = &unit.user;
    let Some(identity) = UserIdentity::find(&unit, &read("/etc/passwd"), &read("/etc/group"))
    else {
        let text = format!(
            "user {user} of {UNIT} is not in /etc/passwd, so whether it can read the configuration was not examined"
        );
        return Some(Finding::new(Verdict::Note, "files", text));
    };
    Some(match unreadable_files(&identity, files) {
        Ok(unreadable) => finding(user, &unreadable),
        Err(error) => {
            let text = format!(
                "whether user {user} of {UNIT} can read the configuration was not examined: {error}"
            );
            Finding::new(Verdict::Note, "files", text)
        }
    })
}

fn finding(user: &str, unreadable: &[(PathBuf, io::Error)]) -> Finding {
    if unreadable.is_empty() {
        let text = format!("user {user} of {UNIT} can read the configuration");
        return Finding::new(Verdict::Good, "files", text);
    }
    let files = unreadable.iter().map(|(path, error)| format!("{} ({error})", path.display()));
    let files = files.collect::<Vec<_>>().join(", ");
    let text = format!(
        "user {user} of {UNIT} cannot read {files}, so the service does not start, although root can read it: give \
         the file to a group of this user (chgrp) with chmod 640, and let the user enter its folders"
    );
    Finding::new(Verdict::Problem, "files", text)
}

/// The text of the unit and of its drop-ins, in the order in which they count. `None`: there is no such unit.
fn unit_texts(folders: &[&Path]) -> Option<Vec<String>> {
    let unit = folders.iter().find_map(|folder| fs::read_to_string(folder.join(UNIT)).ok())?;
    // Of two with one name, that of the earlier folder counts; names are in order across folders.
    let mut drop_ins = BTreeMap::new();
    for folder in folders {
        let entries = fs::read_dir(folder.join(format!("{UNIT}.d"))).into_iter().flatten();
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.extension().is_some_and(|extension| extension == "conf") {
                drop_ins.entry(path.file_name().map(ToOwned::to_owned)).or_insert(path);
            }
        }
    }
    let texts = drop_ins.into_values().filter_map(|path| fs::read_to_string(path).ok());
    Some([unit].into_iter().chain(texts).collect())
}

impl UnitUser {
    /// `None`: the unit runs as root, or its values have specifiers.
    fn parse(texts: &[String]) -> Option<Self> {
        let mut found = Self::default();
        let lines = texts.iter().flat_map(|text| text.lines()).map(str::trim);
        for (name, value) in lines.filter_map(|line| line.split_once('=')) {
            let (name, value) = (name.trim_end(), value.trim());
            match name {
                "User" => found.user = value.to_owned(),
                "Group" => found.group = Some(value.to_owned()).filter(|value| !value.is_empty()),
                "SupplementaryGroups" if value.is_empty() => found.supplementary_groups.clear(),
                "SupplementaryGroups" => {
                    found.supplementary_groups.extend(value.split(' ').map(str::to_owned));
                }
                "WorkingDirectory" => found.folder = value.trim_start_matches('-').into(),
                _ => {}
            }
        }
        let is_plain = |value: &str| !value.contains('%');
        let is_known = !matches!(found.user.as_str(), "" | "root" | "0")
            && is_plain(&found.user)
            && found.folder.is_absolute()
            && found.folder.to_str().is_some_and(is_plain);
        is_known.then_some(found)
    }
}

impl UserIdentity {
    /// `passwd` and `group`: the content of the files of these names in `/etc`.
    fn find(unit: &UnitUser, passwd: &str, group: &str) -> Option<Self> {
        let entry_of = |text: &str, name: &str| -> Option<Vec<String>> {
            let entries = text.lines().map(|line| line.split(':').map(str::to_owned).collect());
            let is_it = |entry: &Vec<String>| {
                [0, 2].iter().any(|field| entry.get(*field).is_some_and(|text| text == name))
            };
            entries.into_iter().find(is_it)
        };
        let group_id = |name: &str| entry_of(group, name)?.get(2)?.parse::<u32>().ok();
        let user = entry_of(passwd, &unit.user)?;
        let primary = user.get(3)?.parse::<u32>().ok()?;
        let own_group = match &unit.group {
            Some(name) => group_id(name)?,
            None => primary,
        };
        let name = user.first()?;
        let of_user = group.lines().filter_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let is_member = fields.get(3)?.split(',').any(|member| member == name);
            is_member.then(|| fields.get(2)?.parse::<u32>().ok())?
        });
        let of_unit = unit.supplementary_groups.iter().filter_map(|name| group_id(name));
        Some(Self {
            user: user.get(2)?.parse().ok()?,
            group: own_group,
            supplementary_groups: of_user.chain(of_unit).collect(),
        })
    }
}

/// Linux has the identity by thread, so the thread that takes it ends with it.
///
/// # Errors
/// When this process may not take the identity, as in a container without that capability.
fn unreadable_files(
    identity: &UserIdentity,
    files: Vec<PathBuf>,
) -> io::Result<Vec<(PathBuf, io::Error)>> {
    let identity = identity.clone();
    let open = move || -> io::Result<Vec<(PathBuf, io::Error)>> {
        let groups: Vec<Gid> =
            identity.supplementary_groups.iter().map(|group| Gid::from_raw(*group)).collect();
        set_thread_groups(&groups)?;
        let group = Gid::from_raw(identity.group);
        set_thread_res_gid(group, group, group)?;
        let user = Uid::from_raw(identity.user);
        set_thread_res_uid(user, user, user)?;
        let opened = files.into_iter().map(|file| (File::open(&file).err(), file));
        Ok(opened.filter_map(|(error, file)| error.map(|error| (file, error))).collect())
    };
    let thread = std::thread::Builder::new().name("service-user".to_owned()).spawn(open)?;
    thread.join().unwrap_or_else(|_| Err(io::Error::other("its thread has ended")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, chown};

    const PASSWD: &str = "root:x:0:0::/root:/bin/sh\nwww-data:x:33:33::/var/www:/bin/false\n";
    const GROUP: &str = "root:x:0:\nwww-data:x:33:\nssl-cert:x:110:other,www-data\nmore:x:120:\n";

    fn unit(text: &str) -> Option<UnitUser> {
        UnitUser::parse(&[text.to_owned()])
    }

    #[test]
    fn the_user_is_that_of_the_unit_and_of_its_last_drop_in() {
        let unit_of_tree = include_str!("../../../tuning/ringverb.service");
        let found = unit(unit_of_tree).expect("a user");
        assert_eq!((found.user.as_str(), found.group.as_deref()), ("www-data", Some("www-data")));
        assert_eq!(found.folder, Path::new("/var/www/app"));
        let folder =
            std::env::temp_dir().join(format!("ringverb-unit-{:x}", getrandom::u64().unwrap()));
        let (first, second) = (folder.join("etc"), folder.join("lib"));
        for (path, text) in [
            (second.join(UNIT), "[Service]\nUser=one\nWorkingDirectory=-/srv\n"),
            (second.join("ringverb.service.d/10-a.conf"), "User=two\nSupplementaryGroups=a b\n"),
            (first.join("ringverb.service.d/10-a.conf"), "User = three\nSupplementaryGroups=c\n"),
            (second.join("ringverb.service.d/05-b.conf"), "User=four\n#User=five\n"),
            (second.join("ringverb.service.d/20-c.txt"), "User=six\n"),
        ] {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let texts = unit_texts(&[&first, &second]).expect("a unit");
        let found = UnitUser::parse(&texts).expect("a user");
        assert_eq!((found.user.as_str(), found.folder.to_str()), ("three", Some("/srv")));
        assert_eq!(found.supplementary_groups, ["c"]);
        assert_eq!(unit_texts(&[&first]), None, "a drop-in is no unit");
        fs::remove_dir_all(folder).unwrap();
        for without in ["", "User=root", "User=%i", "User=a\nUser=", "User=a\nWorkingDirectory=~"] {
            assert_eq!(unit(&format!("WorkingDirectory=/srv\n{without}\n")), None, "{without}");
        }
    }

    #[test]
    fn groups_of_the_user_and_of_the_unit_count() {
        let find = |text: &str| {
            let unit = unit(&format!("WorkingDirectory=/srv\n{text}")).expect("a user");
            UserIdentity::find(&unit, PASSWD, GROUP)
        };
        let identity = |group, supplementary_groups: &[u32]| {
            Some(UserIdentity {
                user: 33,
                group,
                supplementary_groups: supplementary_groups.into(),
            })
        };
        assert_eq!(find("User=www-data"), identity(33, &[110]));
        assert_eq!(
            find("User=33\nGroup=more\nSupplementaryGroups=120"),
            identity(120, &[110, 120])
        );
        assert_eq!(find("User=nobody-here"), None);
    }

    /// Another user may take no identity, and has nothing to examine.
    #[test]
    fn a_file_that_only_root_can_read_is_a_problem_for_the_user_of_the_service() {
        if !geteuid().is_root() {
            assert!(examine(Path::new("/"), &["etc/passwd".to_owned()]).is_none());
            return;
        }
        let folder =
            std::env::temp_dir().join(format!("ringverb-files-{:x}", getrandom::u64().unwrap()));
        fs::create_dir(&folder).unwrap();
        let set_mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        set_mode(&folder, 0o755);
        let files: Vec<PathBuf> = ["open", "of-group", "key"].map(|name| folder.join(name)).into();
        for (file, mode) in files.iter().zip([0o644, 0o640, 0o600]) {
            fs::write(file, "").unwrap();
            set_mode(file, mode);
        }
        chown(&files[1], None, Some(110)).unwrap();
        let identity = UserIdentity { user: 33, group: 33, supplementary_groups: vec![110] };
        let unreadable = unreadable_files(&identity, files.clone()).unwrap();
        let found = finding("www-data", &unreadable);
        assert_eq!(unreadable.len(), 1, "{unreadable:?}");
        assert_eq!(found.verdict, Verdict::Problem);
        assert!(
            found.text.contains("/key (Permission denied (os error 13)), so"),
            "{}",
            found.text
        );
        set_mode(&folder, 0o700);
        assert_eq!(unreadable_files(&identity, files).unwrap().len(), 3, "it cannot enter");
        assert!(fs::read_dir(&folder).is_ok(), "this thread is root as before");
        assert_eq!(finding("www-data", &[]).verdict, Verdict::Good);
        fs::remove_dir_all(folder).unwrap();
    }
}
