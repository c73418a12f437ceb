//! Where the configuration comes from, and how it is read again: for a reload, and by a process that takes over.
//!
//! Owns the sources that are in use and the paths that the command line named. Input: files and the environment
//! (`config::load`). Output: sources, or one sentence for each mistake. Does not apply a configuration
//! (`change/mod.rs`).
//! Limit: those of `config::load`. Cost: one read of each file, and a parse of it.

use std::path::{Path, PathBuf};

use super::apps_file;
use crate::app::Apps;
use crate::config::validate::{DevelopmentApp, build_config};
use crate::config::{
    Config, ConfigurationFiles, FileReader, SERVICE_FILE, Sources, is_read_once, merge,
    read_apps_file,
};

pub(in crate::server) struct Origin {
    pub(in crate::server) sources: Sources,
    pub(in crate::server) config: Option<PathBuf>,
    pub(in crate::server) env_file: Option<PathBuf>,
    pub(in crate::server) env: Option<String>,
    /// The credentials of development mode. A reload keeps them, because clients have them already.
    pub(in crate::server) development: DevelopmentApp,
}

impl Origin {
    /// A pipe or a descriptor, whose content was read once. A reload is refused with its name.
    pub(super) fn file_read_once(&self) -> Option<&PathBuf> {
        [&self.config, &self.env_file].into_iter().flatten().find(|path| is_read_once(path))
    }

    pub(super) fn read_again(&self) -> Result<Sources, Vec<String>> {
        if let Some(path) = self.file_read_once() {
            return Err(vec![format!(
                "{} is no regular file and was read at the start, so it cannot be read again: give the configuration \
                 as a file",
                path.display()
            )]);
        }
        // The file of the service counts only if it did at the start: a file that vanishes for a moment must not put
        // another one in its place.
        let service_file = Some(Path::new(SERVICE_FILE)).filter(|_| self.sources.is_service_file);
        let files = ConfigurationFiles {
            toml_file: self.config.as_deref(),
            env_file: self.env_file.as_deref(),
            laravel_env: self.env.as_deref(),
            service_file,
            reader: FileReader::Server,
        };
        let sources = Sources::read_sources(self.sources.flags.clone(), files)?;
        apps_file::check_presence(self.sources.apps_file.as_ref(), &sources)?;
        Ok(sources)
    }

    /// Reads the apps file again, which the old process may have changed since this one has read it. To be called once
    /// the old process changes it no longer, and before its connections move, because those of unknown apps are closed.
    /// A file that cannot be used leaves the apps as they are: `Changer::reload_if_changed` reports it.
    pub(in crate::server) fn read_apps_again(&mut self, config: &mut Config) {
        let Some((path, in_use)) = &self.sources.apps_file else { return };
        let Ok(Some(table)) = read_apps_file(Path::new(path), FileReader::Server) else { return };
        if table == *in_use {
            return;
        }
        let sources = self.sources.with_apps(table);
        match build_config(&merge(&sources), &self.development) {
            Ok(read) if read.development == config.development => {
                config.apps = read.apps;
                config.apps.truncate(Apps::MAX);
                self.sources = sources;
            }
            _ => {}
        }
    }
}
