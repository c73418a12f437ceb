//! The limits that the control groups of this process set: CPU time and memory, as container engines and systemd use
//! them.
//!
//! Owns no state. Both versions are read: v2 (`cpu.max`, `memory.max`) and v1 (`cpu.cfs_quota_us`,
//! `memory.limit_in_bytes`). A limit holds for the group and for all groups below it. So the smallest limit of the
//! process's group and its ancestors counts, as far up as the mount shows them; in a container its root is usually the
//! container's own group. A file that is missing or has another form sets no limit. Decisions use the texts of files,
//! which a function of the caller reads; `CgroupLimits::of_this_process` reads the real ones. Does not decide what
//! follows from a limit (`resources.rs`).
//! Limit: `FILE_BYTES_MAX` for a file. Cost: once at the start, one file read for each group and limit.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Bytes that are read of a file. A host with many containers has some thousand mounts of about 200 bytes.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Version 1 has a number near 2^63 for "no limit", which depends on the size of a page.
const UNLIMITED_BYTES: u64 = 1 << 62;

/// CPU time that all threads together may use in each period, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CpuQuota {
    quota_us: u64,
    period_us: u64,
}

impl CpuQuota {
    /// CPUs that can be busy all the time under the quota, rounded up, at least 1.
    pub(super) fn cpus(self) -> usize {
        usize::try_from(self.quota_us.div_ceil(self.period_us).max(1)).unwrap_or(usize::MAX)
    }

    /// Whether the quota allows less than `cpus` CPUs all the time.
    pub(super) fn is_below(self, cpus: usize) -> bool {
        u128::from(self.quota_us) < u128::from(self.period_us) * cpus as u128
    }

    fn is_smaller(self, other: Self) -> bool {
        u128::from(self.quota_us) * u128::from(other.period_us)
            < u128::from(other.quota_us) * u128::from(self.period_us)
    }
}

impl fmt::Display for CpuQuota {
    /// In CPUs with up to two decimals, rounded down but for the smallest.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hundredths = (u128::from(self.quota_us) * 100 / u128::from(self.period_us)).max(1);
        let (whole, rest) = (hundredths / 100, hundredths % 100);
        match (rest, rest % 10) {
            (0, _) => write!(formatter, "{whole}"),
            (_, 0) => write!(formatter, "{whole}.{}", rest / 10),
            _ => write!(formatter, "{whole}.{rest:02}"),
        }
    }
}

/// The smallest limits of the process's group and its ancestors. `None`: none of them has one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CgroupLimits {
    pub(super) cpu: Option<CpuQuota>,
    /// In bytes.
    pub(super) memory_bytes: Option<u64>,
}

impl CgroupLimits {
    pub(super) fn of_this_process() -> Self {
        Self::read(&|path| {
            let mut bytes = Vec::new();
            File::open(path).ok()?.take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
            // Names of groups and mounts may be any bytes.
            Some(String::from_utf8_lossy(&bytes).into_owned())
        })
    }

    /// `resources.rs` tests with these what follows from limits.
    #[cfg(test)]
    pub(super) fn of_texts(cpu_max: &str, memory_max: &str) -> Self {
        Self { cpu: cpu_quota(cpu_max), memory_bytes: memory_limit(memory_max) }
    }

    /// `file` returns the text of a file, or `None` if it cannot be read.
    fn read(file: &dyn Fn(&Path) -> Option<String>) -> Self {
        let text = |path: &str| file(Path::new(path)).unwrap_or_default();
        let (groups, mounts) = (text("/proc/self/cgroup"), text("/proc/self/mountinfo"));
        let groups_with = |controller| group_folders(&groups, &mounts, controller);
        let quotas = groups_with("cpu").into_iter().filter_map(|group| {
            let text = |name: &str| file(&group.folder.join(name));
            match group.version {
                CgroupVersion::Two => cpu_quota(&text("cpu.max")?),
                // Minus one is no quota, and no u64.
                CgroupVersion::One => cpu_quota(&format!(
                    "{} {}",
                    text("cpu.cfs_quota_us")?.trim(),
                    text("cpu.cfs_period_us")?.trim()
                )),
            }
        });
        let memory = groups_with("memory").into_iter().filter_map(|group| {
            memory_limit(&file(&group.folder.join(match group.version {
                CgroupVersion::Two => "memory.max",
                CgroupVersion::One => "memory.limit_in_bytes",
            }))?)
        });
        let smaller =
            |one: CpuQuota, other: CpuQuota| if other.is_smaller(one) { other } else { one };
        Self { cpu: quotas.reduce(smaller), memory_bytes: memory.min() }
    }
}

/// `150000 100000`; `None` for `max 100000` and for `-1 100000`.
fn cpu_quota(text: &str) -> Option<CpuQuota> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota_us, period_us) = (quota.parse().ok()?, period.parse().ok()?);
    (period_us > 0).then_some(CpuQuota { quota_us, period_us })
}

/// Bytes; `None` for `max` and for the number that version 1 has instead.
fn memory_limit(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|bytes| *bytes < UNLIMITED_BYTES)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CgroupVersion {
    One,
    Two,
}

/// A folder of the mounted hierarchy, which has the files of one group.
#[derive(Debug, PartialEq, Eq)]
struct CgroupFolder {
    version: CgroupVersion,
    folder: PathBuf,
}

/// The groups of the process and their ancestors, in each hierarchy that may have the controller, from the texts of
/// `/proc/self/cgroup` and `/proc/self/mountinfo`.
fn group_folders(groups: &str, mounts: &str, controller: &str) -> Vec<CgroupFolder> {
    let mounts: Vec<Mount> =
        mounts.lines().filter_map(|line| Mount::parse(line, controller)).collect();
    let mut folders = Vec::new();
    for line in groups.lines() {
        // A path may contain colons.
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let version = match controllers {
            "" => CgroupVersion::Two,
            list if list.split(',').any(|name| name == controller) => CgroupVersion::One,
            _ => continue,
        };
        for mount in mounts.iter().filter(|mount| mount.version == version) {
            let below = mount.path_of_group(Path::new(path));
            folders.extend(
                below
                    .iter()
                    .flat_map(|below| below.ancestors())
                    .map(|below| CgroupFolder { version, folder: mount.mount_point.join(below) }),
            );
        }
    }
    folders
}

struct Mount {
    version: CgroupVersion,
    /// The group that is visible at `mount_point`, as the process sees it.
    mount_root: PathBuf,
    mount_point: PathBuf,
}

impl Mount {
    /// A line of `/proc/self/mountinfo`: `31 23 0:28 ROOT POINT rw,relatime shared:1 - TYPE SOURCE rw,cpu`.
    fn parse(line: &str, controller: &str) -> Option<Self> {
        let (place, what) = line.split_once(" - ")?;
        let mut what = what.split(' ');
        let version = match what.next()? {
            "cgroup2" => CgroupVersion::Two,
            "cgroup" if what.nth(1)?.split(',').any(|name| name == controller) => {
                CgroupVersion::One
            }
            _ => return None,
        };
        let mut place = place.split(' ').skip(3);
        Some(Self {
            version,
            mount_root: unescaped(place.next()?),
            mount_point: unescaped(place.next()?),
        })
    }

    /// The path of a group below the root of this mount; `None` if the mount does not show the group.
    fn path_of_group(&self, group: &Path) -> Option<PathBuf> {
        // Mounted from outside of the process's cgroup namespace: the root is an ancestor of everything in it, and
        // the names in between are unknown.
        if self.mount_root.starts_with("/..") {
            return Some(PathBuf::new());
        }
        let below = group.strip_prefix(&self.mount_root).ok()?;
        // A process outside of its own cgroup namespace.
        let is_outside = below.starts_with("..");
        (!is_outside).then(|| below.to_path_buf())
    }
}

/// The kernel writes blanks, line ends and backslashes as `\040`, three octal digits.
fn unescaped(field: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let digits = behind.get(..3).filter(|_| *first == b'\\');
        let escaped =
            digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &behind[3..] } else { behind };
    }
    PathBuf::from(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn quota(quota_us: u64, period_us: u64) -> CpuQuota {
        CpuQuota { quota_us, period_us }
    }

    fn limits(files: &[(&str, &str)]) -> CgroupLimits {
        CgroupLimits::read(&|path| {
            let found = files.iter().find(|(name, _)| Path::new(name) == path);
            found.map(|(_, text)| (*text).to_owned())
        })
    }

    const V2_MOUNT: &str =
        "25 21 0:23 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn quotas_are_read_and_rounded_up_to_whole_cpus() {
        for (text, cpus, shown) in [
            ("200000 100000\n", 2, "2"),
            ("200001 100000\n", 3, "2"),
            ("150000 100000\n", 2, "1.5"),
            ("125000 100000\n", 2, "1.25"),
            ("5000 100000\n", 1, "0.05"),
            ("1000 1000000\n", 1, "0.01"),
            ("0 100000\n", 1, "0.01"),
            ("6400000 100000\n", 64, "64"),
        ] {
            let quota = cpu_quota(text).unwrap();
            assert_eq!((quota.cpus(), quota.to_string().as_str()), (cpus, shown), "{text}");
        }
        for text in ["max 100000\n", "-1 100000", "", "100000", "100000 0", "a b", "1 2 3"] {
            assert_eq!(cpu_quota(text), None, "{text}");
        }
        assert!(quota(150_000, 100_000).is_below(2) && !quota(150_000, 100_000).is_below(1));
        assert!(!quota(200_000, 100_000).is_below(2));
    }

    #[test]
    fn memory_limits_are_read_with_each_version_s_word_for_none() {
        assert_eq!(memory_limit("268435456\n"), Some(256 << 20));
        for text in [
            "max\n",
            "9223372036854771712\n",
            "9223372036854710272\n",
            "18446744073709551615\n",
            "-1\n",
            "",
        ] {
            assert_eq!(memory_limit(text), None, "{text}");
        }
    }

    #[test]
    fn the_smallest_limit_of_the_group_and_its_ancestors_counts() {
        let files = [
            ("/proc/self/cgroup", "0::/a.slice/b.scope\n"),
            ("/proc/self/mountinfo", V2_MOUNT),
            ("/sys/fs/cgroup/a.slice/b.scope/cpu.max", "max 100000\n"),
            ("/sys/fs/cgroup/a.slice/cpu.max", "50000 20000\n"),
            ("/sys/fs/cgroup/a.slice/b.scope/memory.max", "1073741824\n"),
            ("/sys/fs/cgroup/a.slice/memory.max", "536870912\n"),
            ("/sys/fs/cgroup/c.slice/memory.max", "1\n"),
            ("/sys/fs/cgroup/a.slice/b.scope/d/cpu.max", "1 100000\n"),
        ];
        assert_eq!(
            limits(&files),
            CgroupLimits { cpu: Some(quota(50_000, 20_000)), memory_bytes: Some(512 << 20) }
        );
        // The quotas 2.5 and 1.5 of different periods are compared as quotients.
        let own = [("/sys/fs/cgroup/a.slice/b.scope/cpu.max", "1500000 1000000\n")];
        let files: Vec<_> = own.into_iter().chain(files).collect();
        assert_eq!(limits(&files).cpu, Some(quota(1_500_000, 1_000_000)));
    }

    /// The usual container of version 2: its own group is the root of the mount.
    #[test]
    fn in_a_container_the_root_of_the_mount_has_the_limits() {
        let files = [
            ("/proc/self/cgroup", "0::/\n"),
            ("/proc/self/mountinfo", V2_MOUNT),
            ("/sys/fs/cgroup/cpu.max", "100000 100000\n"),
            ("/sys/fs/cgroup/memory.max", "268435456\n"),
        ];
        assert_eq!(
            limits(&files),
            CgroupLimits { cpu: Some(quota(100_000, 100_000)), memory_bytes: Some(256 << 20) }
        );
        // Mounted before the namespace was entered.
        let mount = "25 21 0:23 /../.. /sys/fs/cgroup ro - cgroup2 cgroup ro\n";
        let files: Vec<_> = [("/proc/self/mountinfo", mount)].into_iter().chain(files).collect();
        assert_eq!(limits(&files).memory_bytes, Some(256 << 20));
    }

    #[test]
    fn version_1_has_a_hierarchy_for_each_controller() {
        // As in a Docker container without a cgroup namespace: the mount's root is the container's group.
        let mounts = "\
            40 30 0:32 /docker/c0 /sys/fs/cgroup/cpu,cpuacct ro shared:9 master:3 - cgroup cgroup rw,cpu,cpuacct\n\
            41 30 0:35 /docker/c0 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n\
            42 30 0:36 /docker/c0 /sys/fs/cgroup/cpuset ro - cgroup cgroup rw,cpuset\n\
            43 30 0:37 /docker/c0 /sys/fs/cgroup/unified ro - cgroup2 cgroup rw\n";
        let files = [
            (
                "/proc/self/cgroup",
                "4:memory:/docker/c0/app\n3:cpuset:/docker/c0\n2:cpuacct,cpu:/docker/c0\n1:name=systemd:/docker/c0\n\
                 0::/docker/c0\n",
            ),
            ("/proc/self/mountinfo", mounts),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "250000\n"),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "1073741824\n"),
            ("/sys/fs/cgroup/memory/app/memory.limit_in_bytes", "9223372036854771712\n"),
        ];
        assert_eq!(
            limits(&files),
            CgroupLimits { cpu: Some(quota(250_000, 100_000)), memory_bytes: Some(1 << 30) }
        );
        let none = [("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n")];
        let files: Vec<_> = none.into_iter().chain(files).collect();
        assert_eq!(limits(&files).cpu, None);
    }

    #[test]
    fn mounts_of_other_groups_do_not_count() {
        let mounts = "25 21 0:23 /other /srv/other rw - cgroup2 cgroup2 rw\n";
        let files = [
            ("/proc/self/cgroup", "0::/own\n"),
            ("/proc/self/mountinfo", mounts),
            ("/srv/other/memory.max", "1048576\n"),
            ("/srv/other/cpu.max", "1 100000\n"),
        ];
        assert_eq!(limits(&files), CgroupLimits::default());
        let files = [("/proc/self/cgroup", "0::/../sibling\n"), ("/proc/self/mountinfo", V2_MOUNT)];
        let mut files = files.to_vec();
        files.extend([
            ("/sys/fs/cgroup/../sibling/memory.max", "1\n"),
            ("/sys/fs/cgroup/memory.max", "1\n"),
        ]);
        assert_eq!(limits(&files), CgroupLimits::default());
    }

    #[test]
    fn names_with_blanks_and_colons() {
        let mounts = r"25 21 0:23 / /sys/fs/my\040cgroup\134 rw - cgroup2 cgroup2 rw";
        let files = [
            ("/proc/self/cgroup", "0::/a:b c\n"),
            ("/proc/self/mountinfo", mounts),
            ("/sys/fs/my cgroup\\/a:b c/memory.max", "1048576\n"),
        ];
        assert_eq!(limits(&files).memory_bytes, Some(1 << 20));
    }

    #[test]
    fn without_control_groups_there_is_no_limit() {
        assert_eq!(limits(&[]), CgroupLimits::default());
        assert_eq!(limits(&[("/proc/self/cgroup", "0::/\n")]), CgroupLimits::default());
    }

    /// The system under this test may have limits or none. One that is read must let a test run.
    #[test]
    fn limits_of_the_real_files_are_such_that_a_test_can_run() {
        let CgroupLimits { cpu, memory_bytes: memory } = CgroupLimits::of_this_process();
        assert!(memory.is_none_or(|bytes| bytes > 1 << 20), "{memory:?}");
        assert!(
            cpu.as_ref().is_none_or(|quota| quota.quota_us > 0 && quota.period_us > 0),
            "{cpu:?}"
        );
    }

    proptest! {
        #[test]
        fn any_text_is_answered(
            group in "[0-9:,a-z/. \\\\]{0,60}",
            mount in "[0-9:,a-z/. \\\\-]{0,90}",
            text in "\\PC{0,20}",
        ) {
            let read = |path: &Path| Some(match path.to_str() {
                Some("/proc/self/cgroup") => format!("0::/{group}\n{group}"),
                Some("/proc/self/mountinfo") => format!("{V2_MOUNT}{mount}\n1 2 3 {group} {mount} rw - cgroup x cpu"),
                _ => text.clone(),
            });
            let _ = CgroupLimits::read(&read);
        }
    }
}
