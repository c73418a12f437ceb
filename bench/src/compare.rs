//! One scenario against several servers in turn, several rounds: medians, ratios, their spread.
//!
//! Owns the order of the runs. Does not know more of the scenario than its JSON. Each run is a process of its own,
//! exactly as it would be started by hand, so the servers are treated alike. Within a round the servers follow each
//! other; every other round goes backwards, so that a drift of the machine (heat, neighbors) affects all of them.
//! Limit: 1,000 rounds. Cost: one process, and so one thread of load, for each run; the results of all runs are kept,
//! some thousand bytes each.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Map, Value, json};

use crate::machine::Machine;
use crate::sys;
use crate::target::{Target, parse_url};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// `NAME=URL`, or `NAME=URL COMMAND` to start it for each run. Ratios are to the first one.
    #[arg(long = "server", required = true, value_parser = parse_contender)]
    contenders: Vec<Contender>,
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,
    /// `NAME=PID` of a server that is only looked at.
    #[arg(long = "pid", value_parser = parse_pid)]
    pids: Vec<(String, u32)>,
    /// Parts of the names of the figures to show; all by default.
    #[arg(long, value_delimiter = ',')]
    show: Vec<String>,
    /// Writes all runs and their summary as JSON.
    #[arg(long)]
    save: Option<PathBuf>,
    /// The scenario and its arguments, behind `--`.
    #[arg(last = true, required = true)]
    scenario: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Contender {
    name: String,
    url: String,
    command: Option<String>,
}

fn parse_contender(text: &str) -> Result<Contender, String> {
    let (name, rest) = text.split_once('=').ok_or("NAME=URL, or NAME=URL COMMAND")?;
    let (url, command) = match rest.split_once(' ') {
        Some((url, command)) => (url, Some(command.trim().to_owned())),
        None => (rest, None),
    };
    parse_url(url)?;
    Ok(Contender { name: name.to_owned(), url: url.to_owned(), command })
}

fn parse_pid(text: &str) -> Result<(String, u32), String> {
    let (name, pid) = text.split_once('=').ok_or("NAME=PID")?;
    let pid = pid.parse().map_err(|_| format!("{pid} is not a process id"))?;
    Ok((name.to_owned(), pid))
}

/// One run: what it printed, and whether it was clean.
fn run_once(target: &Target, args: &Args, contender: &Contender) -> io::Result<Value> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--json", "--any-exit", "--url", &contender.url, "--app-id", &target.app_id]);
    command.args(["--key", &target.key, "--secret", &target.secret]);
    if let Some(cpu) = target.pin {
        command.args(["--pin", &cpu.to_string()]);
    }
    if let Some(cpus) = &target.server_cpus {
        command.args(["--server-cpus", cpus]);
    }
    command.args(target.reach());
    if let Some(start) = &contender.command {
        command.args(["--server-cmd", start]);
    }
    if let Some((_, pid)) = args.pids.iter().find(|(name, _)| *name == contender.name) {
        command.args(["--server-pid", &pid.to_string()]);
    }
    command.args(&args.scenario).stdin(Stdio::null());
    sys::end_with_us(&mut command);
    let output = command.stderr(Stdio::piped()).output()?;
    let name = &contender.name;
    serde_json::from_slice(&output.stdout).map_err(|_| {
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().last().unwrap_or_default().to_owned();
        io::Error::other(format!("{name}: no result ({}): {last}", output.status))
    })
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Spread {
    median: f64,
    least: f64,
    greatest: f64,
}

fn spread(values: &[f64]) -> Option<Spread> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (least, greatest) = (*sorted.first()?, *sorted.last()?);
    let middle = sorted.len() / 2;
    let median = match sorted.len() % 2 {
        1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    };
    Some(Spread { median, least, greatest })
}

/// Runs that lack the figure are left out.
fn values(runs: &[Value], figure: &str) -> Vec<f64> {
    runs.iter().filter_map(|run| run[figure].as_f64()).collect()
}

/// Round by round to the first server's, so that what drifts over time cancels out.
fn ratios(runs: &[Value], first: &[Value], figure: &str) -> Vec<f64> {
    let pairs = runs.iter().zip(first);
    let pair = |(one, other): (&Value, &Value)| {
        let by = other[figure].as_f64().filter(|by| *by > 0.0)?;
        Some(one[figure].as_f64()? / by)
    };
    pairs.filter_map(pair).collect()
}

/// Names of the figures, in the order in which the scenario gives them.
fn figures(runs: &[Vec<Value>]) -> Vec<String> {
    let first = runs.first().and_then(|runs| runs.first());
    let names = first.and_then(|run| run["figures"].as_array()).map(Vec::as_slice);
    let names = names.unwrap_or_default().iter().filter_map(Value::as_str).map(str::to_owned);
    // A figure that is the same in all runs is a setting, not a result.
    let varies = |name: &String| {
        let all: Vec<f64> = runs.iter().flat_map(|runs| values(runs, name)).collect();
        all.windows(2).any(|pair| (pair[0] - pair[1]).abs() > f64::EPSILON)
    };
    names.filter(varies).collect()
}

fn as_json(spread: Option<Spread>) -> Value {
    spread.map_or(Value::Null, |Spread { median, least, greatest }| {
        json!({ "median": median, "least": least, "greatest": greatest })
    })
}

/// Whether a figure with this name is asked for.
fn is_shown(show: &[String], name: &str) -> bool {
    show.is_empty() || show.iter().any(|part| name.contains(part.as_str()))
}

fn print_table(names: &[&str], runs: &[Vec<Value>], show: &[String]) {
    let mut head = "| figure |".to_owned();
    let mut rule = "|---|".to_owned();
    for (number, name) in names.iter().enumerate() {
        head.push_str(&format!(" {name} (least to greatest) |"));
        rule.push_str("---:|");
        if number > 0 {
            head.push_str(&format!(" {name} / {} (least to greatest) |", names[0]));
            rule.push_str("---:|");
        }
    }
    println!("{head}\n{rule}");
    let cell = |spread: Option<Spread>| match spread {
        Some(Spread { median, least, greatest }) => {
            format!(" {} ({} to {}) |", short(median), short(least), short(greatest))
        }
        None => " - |".to_owned(),
    };
    for figure in figures(runs) {
        let shown = figure.replace('_', " ");
        if !is_shown(show, &shown) {
            continue;
        }
        let mut line = format!("| {shown} |");
        for (number, of_one) in runs.iter().enumerate() {
            line.push_str(&cell(spread(&values(of_one, &figure))));
            if number > 0 {
                line.push_str(&cell(spread(&ratios(of_one, &runs[0], &figure))));
            }
        }
        println!("{line}");
    }
}

/// Three significant digits: further ones are noise.
fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

pub(crate) fn run(target: &Target, args: &Args) -> io::Result<bool> {
    let machine = Machine::look();
    let names: Vec<&str> = args.contenders.iter().map(|one| one.name.as_str()).collect();
    let mut runs: Vec<Vec<Value>> = vec![Vec::new(); names.len()];
    let mut clean = true;
    for round in 0..args.rounds {
        let mut order: Vec<usize> = (0..names.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for number in order {
            eprintln!("round {} of {}: {}", round + 1, args.rounds, names[number]);
            let run = run_once(target, args, &args.contenders[number])?;
            if run["violations"] != 0 {
                clean = false;
                eprintln!("{}: {}", names[number], run["violation_texts"]);
            }
            runs[number].push(run);
        }
    }
    let result = result(&machine, args, &names, &runs);
    if let Some(path) = &args.save {
        fs::write(path, format!("{result}\n"))?;
    }
    if target.json {
        println!("{result}");
    } else {
        let scenario = args.scenario.join(" ");
        println!("`{scenario}`, {} rounds; medians, ratios round by round\n", args.rounds);
        print_table(&names, &runs, &args.show);
        let violations: f64 = runs.iter().flat_map(|of_one| values(of_one, "violations")).sum();
        println!("\nviolations: {violations}");
    }
    Ok(clean)
}

fn result(machine: &Machine, args: &Args, names: &[&str], runs: &[Vec<Value>]) -> Value {
    let figures: Map<String, Value> = figures(runs)
        .into_iter()
        .map(|figure| {
            let one = |(name, of_one): (&&str, &Vec<Value>)| {
                let ratios = spread(&ratios(of_one, &runs[0], &figure));
                let value = as_json(spread(&values(of_one, &figure)));
                ((*name).to_owned(), json!({ "value": value, "ratio": as_json(ratios) }))
            };
            let servers: Map<String, Value> = names.iter().zip(runs).map(one).collect();
            (figure, Value::Object(servers))
        })
        .collect();
    json!({
        "compare": args.scenario.join(" "),
        "rounds": args.rounds,
        "servers": names,
        "figures": figures,
        "runs": runs,
        "machine": machine.as_json(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contender_is_a_name_a_url_and_perhaps_a_command() {
        let plain = parse_contender("a=ws://127.0.0.1:1").unwrap();
        assert_eq!((plain.name.as_str(), plain.command), ("a", None));
        let started = parse_contender("b=ws://127.0.0.1:2/x env A=b server --flag").unwrap();
        assert_eq!(started.url, "ws://127.0.0.1:2/x");
        assert_eq!(started.command.as_deref(), Some("env A=b server --flag"));
        assert!(parse_contender("ws://127.0.0.1:1").is_err());
        assert_eq!(parse_pid("a=12"), Ok(("a".to_owned(), 12)));
        assert!(parse_pid("a=b").is_err());
    }

    #[test]
    fn a_spread_has_median_least_and_greatest() {
        let all = spread(&[3.0, 1.0, 2.0]).unwrap();
        assert_eq!(all, Spread { median: 2.0, least: 1.0, greatest: 3.0 });
        assert_eq!(spread(&[4.0, 1.0]).unwrap().median, 2.5);
        assert_eq!(spread(&[]), None);
    }

    #[test]
    fn some_figures_are_shown() {
        let show = ["CPU per".to_owned(), "p99 ms".to_owned()];
        assert!(is_shown(&show, "server CPU per delivery us") && is_shown(&[], "x"));
        assert!(!is_shown(&show, "busy percent"));
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        let first = [json!({"cpu": 10.0}), json!({"cpu": 20.0})];
        let second = [json!({"cpu": 30.0}), json!({"cpu": 60.0})];
        assert_eq!(ratios(&second, &first, "cpu"), [3.0, 3.0]);
        assert_eq!(ratios(&second, &[json!({"cpu": 0.0})], "cpu"), [0.0; 0]);
        assert_eq!(ratios(&second, &first, "absent"), [0.0; 0]);
    }

    #[test]
    fn a_figure_that_never_varies_is_no_result() {
        let runs = vec![
            vec![json!({"n": 5, "cpu": 1.0, "b": 1, "figures": ["n", "cpu", "b"]})],
            vec![json!({"n": 5, "cpu": 2.0, "b": 3, "figures": ["n", "cpu", "b"]})],
        ];
        assert_eq!(figures(&runs), ["cpu", "b"]);
    }
}
