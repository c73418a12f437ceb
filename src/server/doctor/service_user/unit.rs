//! The unit of the service in systemd: its user, its groups and its folder.
//!
//! Reads the unit and its drop-ins as files, in systemd's order. Owns no state. Does not ask systemd, and does not know
//! whether the user exists. Limits: a unit with a specifier (`%`) is not read. Cost: a few small files.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

pub(super) const UNIT: &str = "ringverb.service";
/// Where systemd looks for a unit, the first one counts (systemd.unit(5)).
pub(super) const UNIT_FOLDERS: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// What a unit says about its process.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct UnitUser {
    pub(super) user: String,
    pub(super) group: Option<String>,
    pub(super) supplementary_groups: Vec<String>,
    pub(super) folder: PathBuf,
}

/// The text of the unit and of its drop-ins, in the order in which they count. `None`: there is no such unit.
pub(super) fn unit_texts(folders: &[&Path]) -> Option<Vec<String>> {
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
    pub(super) fn parse(texts: &[String]) -> Option<Self> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::tests::TestFolder;

    fn unit(text: &str) -> Option<UnitUser> {
        UnitUser::parse(&[text.to_owned()])
    }

    #[test]
    fn the_user_is_that_of_the_unit_and_of_its_last_drop_in() {
        let unit_of_tree = include_str!("../../../../tuning/ringverb.service");
        let found = unit(unit_of_tree).expect("a user");
        assert_eq!((found.user.as_str(), found.group.as_deref()), ("www-data", Some("www-data")));
        assert_eq!(found.folder, Path::new("/var/www/app"));
        let folder = TestFolder::new();
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
        for without in ["", "User=root", "User=%i", "User=a\nUser=", "User=a\nWorkingDirectory=~"] {
            assert_eq!(unit(&format!("WorkingDirectory=/srv\n{without}\n")), None, "{without}");
        }
    }
}
