//! Reads the sources of the configuration: flags, the environment, `.env`, `ringverb.toml`, the file of
//! `--laravel-config`, the apps file, `config/reverb.php`.
//!
//! Owns the reading of files and of the environment, here and nowhere else in the configuration. Does not judge a
//! value: `merge.rs` makes one value per option of the sources, and `validate.rs` checks it.
//!
//! Limits: `FILE_BYTES_MAX` for each file; only a file that was named may be a pipe. Cost: once at the start, at each
//! reload and for each command: one read of each file, and one copy of the environment.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::laravel::LaravelConfig;
use super::merge::apps_file_path;
use super::options::OptionId as Id;
use super::reverb_php::ReverbPhp;
use super::sources::{ConfigurationFiles, FileReader, Files, Sources, Unreadable};
use super::values::is_null;
use super::{dotenv, toml_file};

/// A mistake in a file, or a file that cannot be read.
#[derive(Debug)]
pub struct FileMistake {
    pub sentence: String,
    /// The variable that has no value because of it. `None` if no variable is known, or it has a value elsewhere.
    pub variable: Option<String>,
}

impl Sources {
    /// Reads the files and the process environment. A file that was named must be there; a default one need not.
    ///
    /// # Errors
    /// One sentence per mistake in a file.
    pub fn read_sources(
        flags: HashMap<Id, String>,
        files: ConfigurationFiles<'_>,
    ) -> Result<Self, Vec<String>> {
        let (sources, mistakes) = Self::read_readable(flags, files);
        match mistakes.is_empty() {
            true => Ok(sources),
            false => Err(mistakes.into_iter().map(|mistake| mistake.sentence).collect()),
        }
    }

    /// What can be read of the files, and the mistakes in them: for commands, which work on with what is there.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
    pub fn read_readable(
        flags: HashMap<Id, String>,
        ConfigurationFiles { toml_file, env_file, laravel_env, service_file, reader }: ConfigurationFiles<'_>,
    ) -> (Self, Vec<FileMistake>) {
        // Text that is no UTF-8 belongs to another program, or is a wrong value that is reported as one.
        let text = |text: OsString| text.to_string_lossy().into_owned();
        let environment: HashMap<String, String> =
            std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect();
        let mut files = Files::of_environment(reader);
        let env_file_of_laravel =
            environment_file(env_file, laravel_env, environment.get("APP_ENV"));
        let env_file = env_file.or(env_file_of_laravel.as_deref());
        let service_file = service_file
            .filter(|_| toml_file.is_none() && env_file.is_none())
            .filter(|_| !is_configured_here(&flags, &environment))
            .filter(|path| files.may_read(path));
        let toml_file = toml_file.or(service_file);
        let mut mistakes = Vec::new();
        let toml = files.read(toml_file, TOML_FILE).and_then(|bytes| {
            toml_file::parse(&String::from_utf8_lossy(&bytes))
                .map_err(|problem| format!("{}: {problem}", name_of(toml_file, TOML_FILE)))
        });
        let toml = toml.unwrap_or_else(|sentence| {
            mistakes.push(FileMistake { sentence, variable: None });
            toml::Table::default()
        });
        let reverb_php = ReverbPhp::beside(env_file.unwrap_or(Path::new(ENV_FILE)));
        let mut dotenv = HashMap::new();
        match files.read(env_file, ENV_FILE) {
            Ok(bytes) => {
                let name = name_of(env_file, ENV_FILE);
                let (values, malformed) = dotenv::parse(&bytes, &environment);
                dotenv = values;
                mistakes.extend(malformed.into_iter().map(|line| FileMistake {
                    sentence: format!("{name}: {}", line.sentence),
                    // The process environment wins over the file.
                    variable: Some(line.name).filter(|name| !environment.contains_key(name)),
                }));
            }
            Err(sentence) => mistakes.push(FileMistake { sentence, variable: None }),
        }
        let mut sources = Self {
            local_certificate: local_certificate(&flags, &environment, &dotenv, &toml),
            flags,
            environment,
            dotenv,
            toml,
            toml_name: toml_file.map(|path| path.display().to_string()),
            dotenv_name: env_file.map(|path| path.display().to_string()),
            is_service_file: service_file.is_some(),
            reverb_php,
            laravel: None,
            apps_file: None,
            apps_file_is_missing: false,
            files,
        };
        let laravel = sources.read_laravel_file().err().unwrap_or_default();
        let apps = sources.read_named_apps_file().err();
        let more = laravel.into_iter().chain(apps);
        mistakes.extend(more.map(|sentence| FileMistake { sentence, variable: None }));
        (sources, mistakes)
    }

    fn read_laravel_file(&mut self) -> Result<(), Vec<String>> {
        let Some(path) = self.laravel_file() else { return Ok(()) };
        let name = path.display().to_string();
        let bytes =
            read_private(&path).map_err(|error| vec![format!("cannot read {name}: {error}")])?;
        self.laravel = Some(LaravelConfig::parse(bytes, name.clone())?);
        self.files.read.push(name);
        // PHP has read it.
        self.reverb_php = None;
        Ok(())
    }

    /// The path of `--laravel-config`. It is needed before the sources are merged, so its precedence is repeated here.
    fn laravel_file(&self) -> Option<PathBuf> {
        let option = Id::LaravelConfig.spec();
        let name = option.environment[0];
        let in_toml = self.toml.get("server").and_then(|server| server.get(option.key)?.as_str());
        let given = [
            self.flags.get(&Id::LaravelConfig).map(String::as_str),
            self.environment.get(name).map(String::as_str),
            self.dotenv.get(name).map(String::as_str),
            in_toml,
        ];
        given.into_iter().flatten().find(|path| !is_null(path)).map(PathBuf::from)
    }

    /// Reads the file of `RINGVERB_APPS_FILE`, which the other sources name. It need not exist yet: the first change of
    /// an app makes it.
    fn read_named_apps_file(&mut self) -> Result<(), String> {
        let Some(path) = apps_file_path(self) else { return Ok(()) };
        let table = read_apps_file(Path::new(&path), self.files.reader)?;
        self.apps_file_is_missing = table.is_none();
        self.apps_file = Some((path, table.unwrap_or_default()));
        Ok(())
    }

    /// These sources with another content of the apps file, to check a change before it is written.
    #[must_use]
    pub fn with_apps(&self, table: toml::Table) -> Self {
        let mut sources = self.clone();
        if let Some((_, apps)) = &mut sources.apps_file {
            *apps = table;
        }
        sources
    }

    pub(super) fn toml_name(&self) -> &str {
        self.toml_name.as_deref().unwrap_or(TOML_FILE)
    }

    pub(super) fn dotenv_name(&self) -> &str {
        self.dotenv_name.as_deref().unwrap_or(ENV_FILE)
    }
}

/// Reads the file of `RINGVERB_APPS_FILE`; `None` if it does not exist.
///
/// # Errors
/// A sentence with its path.
pub fn read_apps_file(path: &Path, reader: FileReader) -> Result<Option<toml::Table>, String> {
    let name = path.display();
    match read_bounded(path, false) {
        Ok(bytes) => toml_file::parse(&String::from_utf8_lossy(&bytes))
            .map(Some)
            .map_err(|problem| format!("{name} (RINGVERB_APPS_FILE): {problem}")),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!(
            "cannot read {name}, which RINGVERB_APPS_FILE names: {}",
            why_unreadable(path, &error, reader)
        )),
    }
}

/// Whether a file can be read once only, such as the pipe that a shell makes for `<(command)`. A reload cannot read it
/// again.
#[must_use]
pub fn is_read_once(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| !found.is_file())
}

/// Certificate and key that Herd or Valet has made for `REVERB_HOST`, and where they are. These serve sites over https
/// with certificates of their own authority. Reverb uses the one whose name is `REVERB_HOST`, so browsers of a
/// developer that trust the authority need no proxy.
pub(super) fn local_certificate(
    flags: &HashMap<Id, String>,
    environment: &HashMap<String, String>,
    dotenv: &HashMap<String, String>,
    toml: &toml::Table,
) -> Option<([String; 2], String)> {
    const CERTIFICATE_FOLDERS: [&str; 2] = [
        "Library/Application Support/Herd/config/valet/Certificates",
        ".config/valet/Certificates",
    ];
    let variable = "REVERB_HOST";
    let in_file = toml.get("server").and_then(|server| server.get("hostname")?.as_str());
    let host = flags.get(&Id::Hostname).or_else(|| environment.get(variable));
    let host = host.or_else(|| dotenv.get(variable)).map(String::as_str).or(in_file)?;
    // The host becomes part of a path, so it must not lead to another folder.
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    if host.is_empty() || host.starts_with('.') || !host.bytes().all(is_name) {
        return None;
    }
    let home = Path::new(environment.get("HOME")?);
    CERTIFICATE_FOLDERS.iter().find_map(|folder| {
        let folder = home.join(folder);
        let files = ["crt", "key"].map(|end| folder.join(format!("{host}.{end}")));
        let is_there = files.iter().all(|file| file.is_file());
        let texts = files.map(|file| file.display().to_string());
        is_there.then(|| (texts, format!("{}: the certificate of {host}", folder.display())))
    })
}

/// The file that Laravel reads instead of `.env`, if it exists: `.env.NAME` for `--env=NAME`, or for `APP_ENV` in the
/// environment of the process.
fn environment_file(
    named: Option<&Path>,
    laravel_env: Option<&str>,
    app_env: Option<&String>,
) -> Option<PathBuf> {
    let app_env = app_env.map(|name| dotenv::laravel_env_value(name));
    // PHP treats all other texts as true.
    let app_env = app_env.as_deref().filter(|name| !matches!(*name, "" | "0" | "false"));
    // PHP writes true as "1".
    let app_env = app_env.map(|name| if name == "true" { "1" } else { name });
    let names = laravel_env.into_iter().chain(app_env).filter(|_| named.is_none());
    let mut files = names.map(|name| PathBuf::from(format!("{ENV_FILE}.{name}")));
    files.find(|file| file.is_file())
}

/// Whether the working directory has a configuration, or the flags or the environment name an app. Then the file of the
/// host's service does not count.
fn is_configured_here(flags: &HashMap<Id, String>, environment: &HashMap<String, String>) -> bool {
    let is_given = |id: Id| {
        let mut names = id.spec().environment.iter();
        flags.contains_key(&id)
            || names.any(|name| environment.get(*name).is_some_and(|value| !is_null(value)))
    };
    [ENV_FILE, TOML_FILE].iter().any(|name| Path::new(name).exists())
        || [Id::LaravelConfig, Id::AppId, Id::AppKey, Id::AppSecret].into_iter().any(is_given)
}

/// The configuration of the service that packages install. Commands find it from any directory without a configuration
/// of its own, so that an operator's `ringverb check` is about the server of this host.
pub const SERVICE_FILE: &str = "/etc/ringverb/ringverb.toml";
const TOML_FILE: &str = "ringverb.toml";
const ENV_FILE: &str = ".env";
const FILE_BYTES_MAX: u64 = 4 << 20;

fn name_of(named: Option<&Path>, default: &str) -> String {
    named.map_or_else(|| default.to_owned(), |path| path.display().to_string())
}

impl Files {
    fn of_environment(reader: FileReader) -> Self {
        let folder = std::env::current_dir().map(|folder| folder.display().to_string());
        Self { folder: folder.unwrap_or_default(), read: Vec::new(), unreadable: None, reader }
    }

    /// Whether the service's file exists and this user may read it. One that exists and cannot be read is kept in
    /// `unreadable` for a warning.
    fn may_read(&mut self, path: &Path) -> bool {
        let opened = match std::fs::metadata(path) {
            // To open a FIFO would block the command.
            Ok(found) if !found.is_file() => Err(Unreadable::NotRegular),
            Ok(_) => std::fs::File::open(path).map(drop).map_err(|error| why_unusable(&error)),
            // A link that leads nowhere has a name of its own.
            Err(error)
                if error.kind() == ErrorKind::NotFound
                    && std::fs::symlink_metadata(path).is_err() =>
            {
                return false;
            }
            Err(error) => Err(why_unusable(&error)),
        };
        let is_readable = opened.is_ok();
        self.unreadable = opened.err().map(|why| (path.display().to_string(), why));
        is_readable
    }

    fn read(&mut self, named: Option<&Path>, default: &str) -> Result<Vec<u8>, String> {
        match read_bounded(named.unwrap_or(Path::new(default)), named.is_some()) {
            Ok(bytes) => {
                self.read.push(name_of(named, default));
                Ok(bytes)
            }
            Err(error) if error.kind() == ErrorKind::NotFound && named.is_none() => Ok(Vec::new()),
            Err(error) => {
                let name = name_of(named, default);
                let path = named.unwrap_or(Path::new(default));
                Err(format!("cannot read {name}: {}", why_unreadable(path, &error, self.reader)))
            }
        }
    }
}

fn why_unusable(error: &io::Error) -> Unreadable {
    match error.kind() {
        ErrorKind::PermissionDenied => Unreadable::Denied,
        _ => Unreadable::Broken(error.to_string()),
    }
}

/// The text of an error. For a file that this user may not read, it says who owns it, who this user is, and what to
/// change: files with secrets often have the mode 600, and a container has a user of its own.
fn why_unreadable(path: &Path, error: &io::Error, reader: FileReader) -> String {
    if error.kind() != ErrorKind::PermissionDenied {
        return error.to_string();
    }
    let user = rustix::process::geteuid().as_raw();
    let owned = std::fs::metadata(path).map(|file| {
        let owner = format!("{}:{}", file.uid(), file.gid());
        let (of_user, group, mode) = (file.uid(), file.gid(), file.mode() & 0o777);
        (owner, format!("belongs to user {of_user} and group {group} and has the mode {mode:03o}"))
    });
    match (owned, reader) {
        (Ok((owner, whose)), FileReader::Server) => format!(
            "{error}; it {whose}, and the server runs as user {user}: let this user read it (chgrp to a group of this \
             user and chmod 640), or start the server as the file's owner (in a container: --user {owner})"
        ),
        (Ok((_, whose)), FileReader::Command) => format!(
            "{error}; it {whose}, and this command runs as user {user}: run it as the file's owner, or let this user \
             read it (chgrp to a group of this user and chmod 640)"
        ),
        (Err(_), FileReader::Server) => format!(
            "{error}; the server runs as user {user}, which may not enter a folder of the path: let this user enter it \
             (chmod o+x), or start the server as another user"
        ),
        (Err(_), FileReader::Command) => format!(
            "{error}; this command runs as user {user}, which may not enter a folder of the path: run it in another \
             folder, or name files of other folders with --env-file and --config"
        ),
    }
}

/// Reads a file up to `FILE_BYTES_MAX`. Only a file that was named may be a pipe, as a shell makes for `<(command)`,
/// or a device: an unnamed one would block the start until another process writes to it.
fn read_bounded(path: &Path, is_named: bool) -> io::Result<Vec<u8>> {
    if !is_named && !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("it has more than {FILE_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

/// Reads a file with secrets. It is refused if it does not belong to this user or root, or if another user can read it.
fn read_private(path: &Path) -> io::Result<Vec<u8>> {
    let refused = |why: String| io::Error::other(why);
    // To open a FIFO would block the start.
    if !std::fs::metadata(path)?.is_file() {
        return Err(refused("it is not a regular file".to_owned()));
    }
    let file = std::fs::File::open(path)?;
    let metadata = file.metadata()?;
    let (owner, user) = (metadata.uid(), rustix::process::geteuid().as_raw());
    if owner != user && owner != 0 {
        return Err(refused(format!(
            "it has secrets and belongs to user {owner}, and the server runs as user {user}: start both as one user"
        )));
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(refused(format!(
            "it has secrets, and others can use it (mode {mode:04o}): chmod 600 it"
        )));
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(refused(format!("it has more than {FILE_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_file_of_the_service_counts_only_where_nothing_else_names_a_configuration() {
        let scratch = |name: &str| {
            std::env::temp_dir().join(format!("ringverb-{name}-{}.toml", std::process::id()))
        };
        let (service, other) = (scratch("service"), scratch("other"));
        std::fs::write(&service, "[server]\nport = 9\n").unwrap();
        std::fs::write(&other, "").unwrap();
        let gathered = |flags: &[(Id, &str)], named: Option<&Path>, service_file: &Path| {
            let flags = flags.iter().map(|(id, value)| (*id, (*value).to_owned())).collect();
            {
                let service_file = Some(service_file);
                let files =
                    ConfigurationFiles { toml_file: named, service_file, ..Default::default() };
                Sources::read_sources(flags, files)
            }
            .unwrap()
        };
        let found = gathered(&[], None, &service);
        let name = service.display().to_string();
        assert!(found.is_service_file && found.toml.contains_key("server"));
        assert_eq!(
            (found.toml_name(), &found.files.read[..]),
            (name.as_str(), &[name.clone()][..])
        );
        let elsewhere = [
            gathered(&[], Some(&other), &service),
            gathered(&[(Id::AppKey, "key")], None, &service),
            gathered(&[], None, Path::new("/nonexistent/ringverb.toml")),
        ];
        for sources in elsewhere {
            assert!(!sources.is_service_file && !sources.toml.contains_key("server"));
            assert_eq!(sources.files.unreadable, None);
        }
        std::fs::remove_file(&service).unwrap();
        std::fs::remove_file(&other).unwrap();
    }

    #[test]
    fn a_file_of_the_service_that_is_there_and_cannot_be_read_is_remembered_with_its_reason() {
        let folder = std::env::temp_dir().join(format!("ringverb-unusable-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let path = |name: &str| folder.join(name);
        std::os::unix::fs::symlink(path("missing"), path("dangling")).unwrap();
        std::os::unix::fs::symlink(path("loop"), path("loop")).unwrap();
        std::fs::write(path("plain"), "").unwrap();
        std::os::unix::fs::symlink(path("plain"), path("link")).unwrap();
        let found = |path: &Path| {
            let mut files = Files::default();
            let may_read = files.may_read(path);
            assert_eq!(may_read, path.is_file(), "{path:?}");
            files.unreadable.map(|(_, why)| why)
        };
        assert_eq!(found(&path("link")), None);
        assert_eq!(found(&path("missing")), None);
        assert_eq!(found(&folder), Some(Unreadable::NotRegular));
        assert_eq!(found(Path::new("/dev/null")), Some(Unreadable::NotRegular));
        for name in ["dangling", "loop"] {
            assert!(matches!(found(&path(name)), Some(Unreadable::Broken(_))), "{name}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_file_of_another_user_is_refused_with_both_users_and_what_to_change() {
        let path = std::env::temp_dir().join(format!("ringverb-load-{}", std::process::id()));
        std::fs::write(&path, "REVERB_APP_ID=1").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        // Root may read every file, so the error is made here.
        let denied = io::Error::from_raw_os_error(libc::EACCES);
        let text = why_unreadable(&path, &denied, FileReader::Server);
        let user = rustix::process::geteuid().as_raw();
        for part in [
            format!("Permission denied (os error 13); it belongs to user {user} and group "),
            format!("has the mode 600, and the server runs as user {user}: let this user read it"),
            format!("(in a container: --user {user}:"),
        ] {
            assert!(text.contains(&part), "{part}\nnot in\n{text}");
        }
        std::fs::remove_file(&path).unwrap();
        let text = why_unreadable(&path, &denied, FileReader::Server);
        assert!(text.contains("may not enter a folder of the path"), "{text}");
        let missing = io::Error::from_raw_os_error(libc::ENOENT);
        assert_eq!(
            why_unreadable(&path, &missing, FileReader::Server),
            "No such file or directory (os error 2)"
        );
    }
}
