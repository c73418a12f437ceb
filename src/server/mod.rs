//! The process: command line, checks before the start, messages to the operator, life and end; and the commands that
//! speak to a running server.
//!
//! Owns no state: it chooses the command and its exit code. `cli.rs` parses arguments, `config` reads options,
//! `life.rs` starts the threads and waits, `ending.rs` ends them. `client` has the commands that speak to a server.
//! Everything here may block, because the workers have threads of their own. An error of the operator is a sentence
//! with exit code 1; all problems of a configuration are reported at once. Does not serve a client.
//! No limits: each command has its own. Cost: once at the start: files read, some short probes.

mod admin;
mod banner;
mod certificates;
mod cgroup;
mod change;
mod check;
mod cli;
mod client;
mod control;
mod delay;
mod development;
mod doctor;
mod ending;
mod generated;
mod life;
mod listeners;
mod locked;
mod manual;
mod memory;
mod orders;
mod own_file;
mod port;
mod probe;
mod resources;
mod succession;
mod supervision;
mod takeover;
#[cfg(test)]
mod tests;
mod wait;
mod watch;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use rustix::process::Pid;
use signal_hook::consts::SIGHUP;

use crate::config::options::OptionId;
use crate::config::validate::{
    CONNECTION_OPTIONS, DevelopmentApp, ReachableConfig, build_config, build_reachable_config,
};
use crate::config::{
    Config, ConfigurationFiles, FileMistake, FileReader, LogFormat, Merged, SERVICE_FILE, Sources,
    merge,
};
use crate::output;
use crate::output::NoticeKind;
use crate::worker::kernel::Choice;
use crate::worker::{block_signals, unblock_signals};
use certificates::{Certificates, findings_of_certificates};
use change::Origin;
use check::Style;
use cli::{
    Arguments, CheckArguments, ClientCommand, Command, DescribeCommand, DoctorArguments,
    FileArguments,
};
use development::DevelopmentAccess;
use doctor::{Finding, Verdict};
use ending::ServerEnd;
use generated::generated_credentials;
use locked::LockedMemory;
pub(crate) use probe::StartError;
use resources::Resources;
use takeover::replacement::{self, Role};

/// Runs the command line. 0 is a clean end, 1 a failure while running, 2 a wrong command line or configuration.
#[must_use]
pub fn main() -> ExitCode {
    // A SIGHUP that arrives before its handler exists would end the process. A held one is a reload later. The call
    // fails only for a number that is no signal.
    block_signals(&[SIGHUP]).ok();
    let arguments = Arguments::read();
    if !arguments.is_start() {
        // A command ends at SIGHUP, as any program of a closed terminal. The call fails only for a number that is no
        // signal.
        unblock_signals(&[SIGHUP]).ok();
    }
    if let Some(stand_in) = arguments.minds() {
        return wait_for_stand_in(stand_in, &arguments);
    }
    match arguments.role() {
        Role::StandIn(parent) => {
            if let Err(error) = replacement::end_with_parent(parent) {
                return fail(&StartError::TakeOver(error));
            }
        }
        Role::TakesBack(_) => replacement::release_signals_in_time(),
        Role::Server => {}
    }
    replacement::mind_after_failure(arguments.role(), run(&arguments))
}

/// The second step of SIGUSR2 has failed. The stand-in serves, and the supervisor watches this process.
fn wait_for_stand_in(stand_in: Pid, arguments: &Arguments) -> ExitCode {
    // The log goes on in the form that it had. A configuration that has become wrong is no reason to stop waiting.
    let built = read_configuration(arguments)
        .and_then(|(_, merged)| build_config(&merged, &generated_credentials()));
    let log = built.ok().map(|config| config.log);
    let settings = output::OutputSettings {
        prints_events: arguments.prints_events(),
        color: false,
        format: log.map_or(LogFormat::Auto, |log| log.format),
        level: log.and_then(|log| log.level),
        is_local_time: log.is_some_and(|log| log.is_local_time),
    };
    if let Err(error) = output::start(settings) {
        return fail(&StartError::Start(error));
    }
    let status = replacement::wait_for_stand_in(stand_in);
    output::finish();
    status
}

/// Reads no configuration: packages are built where there is none.
fn describe(command: &DescribeCommand) -> ExitCode {
    let described = Arguments::described();
    let result = match command {
        DescribeCommand::Completions { shell } => {
            output::log_text(&manual::completions(&described, *shell));
            Ok(())
        }
        DescribeCommand::ManualPages { folder } => manual::write_pages(described, folder)
            .map_err(|error| format!("No manual pages in {}: {error}", folder.display())),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            output::notice(NoticeKind::Error, &problem);
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> ExitCode {
    if let Some(Command::Describe(command)) = &arguments.command {
        return describe(command);
    }
    if let Some(Command::Client(command @ ClientCommand::Health(address))) = &arguments.command {
        return run_health(command, address.url.is_some(), arguments);
    }
    let (sources, merged) = match read_configuration(arguments) {
        Ok(gathered) => gathered,
        Err(problems) => return refuse(&problems, consequence(arguments.command.as_ref())),
    };
    output::allow_color(merged.color);
    match &arguments.command {
        Some(Command::Check(arguments)) => run_check(&merged, arguments),
        Some(Command::Doctor(arguments)) => run_doctor(&merged, arguments),
        Some(Command::Client(command)) => run_client(command, &merged),
        Some(Command::Start(_) | Command::Describe(_)) | None => start(sources, &merged, arguments),
    }
}

/// All values, from the command line, the environment and the files.
fn read_configuration(arguments: &Arguments) -> Result<(Sources, Merged), Vec<String>> {
    let files = arguments.files();
    let reader = if arguments.is_start() { FileReader::Server } else { FileReader::Command };
    let sources = Sources::read_sources(arguments.flags(), configuration_files(&files, reader));
    sources.map(|sources| {
        let merged = merge(&sources);
        (sources, merged)
    })
}

fn configuration_files(files: &FileArguments, reader: FileReader) -> ConfigurationFiles<'_> {
    ConfigurationFiles {
        toml_file: files.config.as_deref(),
        env_file: files.env_file.as_deref(),
        laravel_env: files.env.as_deref(),
        service_file: Some(Path::new(SERVICE_FILE)),
        reader,
    }
}

/// The last line after the problems of a configuration: what they have prevented.
fn consequence(command: Option<&Command>) -> &'static str {
    match command {
        None | Some(Command::Start(_) | Command::Describe(_)) => {
            "Not started. Fix the configuration above; `ringverb check` lists every value."
        }
        Some(Command::Check(_) | Command::Doctor(_)) => {
            "A server does not start with this configuration."
        }
        Some(Command::Client(_)) => {
            "Nothing was sent. Fix the configuration above; `ringverb check` lists every value."
        }
    }
}

fn warn(merged: &Merged) {
    merged.warnings.iter().for_each(|warning| output::notice(NoticeKind::Warning, warning));
}

/// Commands do not show those of a migration, which are about the server.
fn warn_of_all(merged: &Merged) {
    warn(merged);
    merged
        .migration_warnings
        .iter()
        .for_each(|warning| output::notice(NoticeKind::Warning, warning));
}

fn run_client(command: &ClientCommand, merged: &Merged) -> ExitCode {
    warn(merged);
    match build_config(merged, &generated_credentials()) {
        Ok(config) => {
            let scheme = merged.server.get(OptionId::Scheme).map(|given| given.value.as_str());
            client::run(command, config, scheme)
        }
        Err(problems) => refuse(&problems, consequence(Some(&Command::Client(command.clone())))),
    }
}

/// Asks a server that runs, whatever became of its files: the health check of a container must not fail because of a
/// mistake in a file that the server has not read. What says how to connect must be right, unless there is a URL.
fn run_health(command: &ClientCommand, has_url: bool, arguments: &Arguments) -> ExitCode {
    let files = arguments.files();
    let files = configuration_files(&files, FileReader::Command);
    let (sources, mistakes) = Sources::read_readable(arguments.flags(), files);
    let merged = merge(&sources);
    output::allow_color(merged.color);
    warn(&merged);
    let ReachableConfig { config, connection_problems, other_problems } =
        build_reachable_config(&merged, &generated_credentials());
    let is_of_connection = |mistake: &FileMistake| {
        mistake.variable.as_deref().is_some_and(|variable| {
            let mut options = CONNECTION_OPTIONS.iter();
            options.any(|id| {
                id.spec().environment.contains(&variable) && !sources.flags.contains_key(id)
            })
        })
    };
    let (lost, mistakes): (Vec<_>, Vec<_>) = mistakes.into_iter().partition(is_of_connection);
    let lost = lost.into_iter().map(|mistake| mistake.sentence).chain(connection_problems);
    let mut problems: Vec<String> = lost.collect();
    if !has_url && !problems.is_empty() {
        return refuse(&problems, consequence(arguments.command.as_ref()));
    }
    problems.extend(mistakes.into_iter().map(|mistake| mistake.sentence).chain(other_problems));
    problems.iter().for_each(|problem| output::notice(NoticeKind::Warning, problem));
    if !problems.is_empty() {
        output::notice(
            NoticeKind::Note,
            "a server does not start with this configuration; the running one is asked nevertheless",
        );
    }
    let scheme = merged.server.get(OptionId::Scheme).map(|given| given.value.as_str());
    client::run(command, config, scheme)
}

/// 0 if a start would succeed, 1 if something is in its way, 2 for a wrong configuration.
fn run_check(merged: &Merged, arguments: &CheckArguments) -> ExitCode {
    let style = Style {
        has_color: output::stdout_may_have_color(merged.color),
        shows_defaults: arguments.all,
    };
    let built = build_config(merged, &generated_credentials());
    output::log_text(&check::render(merged, built.as_ref().ok(), style));
    let warnings = merged.warnings.len() + merged.migration_warnings.len();
    if warnings > 0 {
        output::log_text("\n");
    }
    warn_of_all(merged);
    let mut config = match built {
        Ok(config) => config,
        Err(problems) => {
            return refuse(&problems, consequence(Some(&Command::Check(arguments.clone()))));
        }
    };
    let with = match warnings {
        0 => String::new(),
        1 => ", with 1 warning".to_owned(),
        count => format!(", with {count} warnings"),
    };
    output::log_text(&format!("\nThe configuration is valid{with}.\n"));
    let mut findings: Vec<Finding> = doctor::examine_files(merged, &config);
    if arguments.offline {
        findings.extend(config.tls.iter().flat_map(findings_of_certificates));
    } else {
        let shares = Resources::of_this_process().fill_in(&mut config);
        findings.extend(doctor::examine(&config, &shares));
    }
    if !findings.is_empty() {
        output::log_text(&check::render_findings(&findings, style));
    }
    let has_problem = findings.iter().any(|finding| finding.verdict == Verdict::Problem);
    if has_problem { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// 0 if nothing is wrong, 1 for warnings only, 2 for a problem.
fn run_doctor(merged: &Merged, arguments: &DoctorArguments) -> ExitCode {
    let built = build_config(merged, &generated_credentials());
    let report = doctor::diagnose(merged, built, arguments.connections);
    let color = output::stdout_may_have_color(merged.color);
    let text = if arguments.json { report.json() } else { report.text(color) };
    output::log_text(&text);
    match report.verdict() {
        Verdict::Good | Verdict::Note => ExitCode::SUCCESS,
        Verdict::Warning => ExitCode::from(1),
        Verdict::Problem => ExitCode::from(2),
    }
}

fn start(sources: Sources, merged: &Merged, arguments: &Arguments) -> ExitCode {
    let mut development = generated_credentials();
    let built = build_config(merged, &development).and_then(|config| {
        let replaced = replaced_access(&config, arguments);
        match replaced {
            None => Ok(config),
            Some(DevelopmentAccess { id, key, secret, .. }) => {
                development = DevelopmentApp { id, key, secret };
                build_config(merged, &development)
            }
        }
    });
    let config = match built {
        Ok(config) => config,
        Err(problems) => {
            warn_of_all(merged);
            return refuse(&problems, consequence(None));
        }
    };
    let certificates = config.tls.as_ref().map(Certificates::load).transpose();
    let certificates = match certificates {
        Ok(certificates) => certificates,
        Err(problems) => {
            warn_of_all(merged);
            return refuse(&problems, consequence(None));
        }
    };
    let settings = output::OutputSettings {
        prints_events: config.print_events,
        color: config.color,
        format: config.log.format,
        level: config.log.level,
        is_local_time: config.log.is_local_time,
    };
    if let Err(error) = output::start(settings) {
        return fail(&StartError::Start(error));
    }
    let files = arguments.files();
    let origin = Origin {
        sources,
        config: files.config,
        env_file: files.env_file,
        env: files.env,
        development,
    };
    let status = run_server(merged, config, certificates, arguments, origin);
    output::finish();
    status
}

/// The credentials of a development server that this process replaces: its clients know them.
fn replaced_access(config: &Config, arguments: &Arguments) -> Option<DevelopmentAccess> {
    arguments.takeover().filter(|_| config.development)?;
    // A stand-in publishes its own access when it has taken over, which may be a moment from now.
    let attempts = if matches!(arguments.role(), Role::TakesBack(_)) { 200 } else { 1 };
    (0..attempts).find_map(|attempt| {
        if attempt > 0 {
            wait::sleep(Duration::from_millis(10));
        }
        development::find(config.port)
    })
}

fn run_server(
    merged: &Merged,
    mut config: Config,
    certificates: Option<Certificates>,
    arguments: &Arguments,
    origin: Origin,
) -> ExitCode {
    let role = arguments.role();
    // The process for which this one stands in has logged everything.
    if !matches!(role, Role::StandIn(_)) {
        warn_of_all(merged);
        let warnings = certificates.iter().flat_map(Certificates::warnings);
        let warnings = warnings.chain(output::zone_warning());
        warnings.for_each(|warning| output::notice(NoticeKind::Warning, &warning));
    }
    let public = banner::PublicAddress::of(merged);
    let shares = Resources::of_this_process().fill_in(&mut config);
    let memory = LockedMemory::for_workers(config.workers);
    let facts = match probe::run(config.io, &memory) {
        Ok(facts) => facts,
        Err(error) => return fail(&error),
    };
    if let Some(note) = facts.note().filter(|_| !matches!(role, Role::StandIn(_))) {
        output::notice(NoticeKind::Note, &note);
    }
    if let Some(warning) = facts.warning() {
        output::notice(NoticeKind::Warning, &warning);
    }
    if let Some(warning) = memory.warning().filter(|_| matches!(facts.io, Choice::Uring(_))) {
        output::notice(NoticeKind::Warning, &warning);
    }
    let summary = banner::Summary::of(&config, &merged.files, &facts, &shares);
    let access = config.development.then(|| DevelopmentAccess::of_config(&config));
    let mut published = None;
    let on_start = |started: life::Started| {
        published = access.and_then(|access| {
            publish_access(DevelopmentAccess { address: started.address, ..access })
        });
        let invocation = banner::Invocation {
            program: command_name(),
            is_found: published.is_some(),
            has_color: output::has_color(),
        };
        // A stand-in serves for a moment only.
        if matches!(role, Role::StandIn(_)) {
            return;
        }
        let banner = banner::render(&started, &summary, &public, &invocation);
        output::log_text_as("server_started", &banner);
    };
    let served = life::serve(
        (config, origin),
        certificates,
        facts.io,
        arguments.takeover(),
        role,
        &shares.pins,
        on_start,
    );
    if let Some(published) = published {
        published.withdraw();
    }
    match served {
        Ok(ServerEnd::Stopped) => ExitCode::SUCCESS,
        Ok(ServerEnd::Replaced(replacement)) => replacement.run(),
        Err(error) => fail(&error),
    }
}

/// The start message has the credentials, too, so a failure is no error.
fn publish_access(access: DevelopmentAccess) -> Option<development::Published> {
    let address = banner::reachable_address(access.address);
    development::publish(&DevelopmentAccess { address, ..access })
        .inspect_err(|error| {
            tracing::info!(
                event = "development_access_not_published",
                "`ringverb publish` and the other commands will not find this server by themselves, because its \
                 credentials could not be written for them: {error}. They need a writable /tmp, or a folder of this \
                 user in XDG_RUNTIME_DIR (in a container: --tmpfs /tmp)"
            );
        })
        .ok()
}

/// The start message has it in commands. The name is used only if a shell reads it as one plain word.
fn command_name() -> String {
    let called = std::env::args_os().next().unwrap_or_default().to_string_lossy().into_owned();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+@".contains(&byte);
    if !called.is_empty() && called.bytes().all(is_plain) { called } else { "ringverb".to_owned() }
}

fn refuse(problems: &[String], consequence: &str) -> ExitCode {
    problems.iter().for_each(|problem| output::notice(NoticeKind::Error, problem));
    output::write_stderr(&format!("{consequence}\n"));
    ExitCode::from(2)
}

fn fail(error: &StartError) -> ExitCode {
    output::notice(NoticeKind::Error, &error.to_string());
    ExitCode::FAILURE
}
