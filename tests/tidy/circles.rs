//! No two files of `src`, the load generator, the process tests and the simulator import each other, directly or in a
//! circle: a file can be read after those that it imports.
//!
//! An import is an item that a file names, by `use` or by a path, in the file that defines it: re-exports are followed.
//! The `impl` of a type below the file that defines it is no import, because a long type has methods in several files.
//! Tests do not count. Modules of the root are compared by rank, in `tidy.rs`.

use std::collections::{BTreeMap, BTreeSet};

use super::report;
use super::source::{BLANK, Source, has_word, is_word, sources, tests, without_tests};

/// Folders with the sources of one crate each.
const CRATES: &[&str] = &["src", "bench/src", "tests/process", "tests/simulator"];

/// A path of modules, from the root of the crate.
type Module = Vec<String>;

/// A path of a `use`, with the name that it has in the file.
struct Use {
    path: Vec<String>,
    name: String,
}

struct File {
    name: String,
    /// Without `use` and tests.
    body: String,
    uses: Vec<Use>,
}

struct Tree(BTreeMap<Module, File>);

/// What each file names of others.
type Imports = BTreeMap<Module, BTreeMap<Module, BTreeSet<String>>>;

#[test]
fn no_files_import_each_other_in_a_circle() {
    let mut violations = Vec::new();
    for root in CRATES {
        let all = match root.split('/').next() {
            Some("src") => sources("src"),
            Some("bench") => sources("bench"),
            _ => tests(),
        };
        let tree = Tree::of(all, root);
        assert!(tree.0.len() > 20, "{root} has {} files only", tree.0.len());
        violations.extend(tree.circles(&tree.imports()));
    }
    report(&violations);
}

/// The rule rests on this reading of imports.
#[test]
fn circles_are_found_through_reexports_and_paths() {
    let file = |name: &str, text: &str| Source::new(name, text.to_owned());
    let tree = |b: &str| {
        let sources = [
            file("src/lib.rs", "mod a;"),
            file("src/a/mod.rs", "mod b;\nmod c;\npub use b::{B as Named, D};\nstruct A(Named);\n"),
            file("src/a/b.rs", b),
            file("src/a/c.rs", "use super::D;\npub fn f(_: D) {}\n"),
        ];
        Tree::of(&sources, "src")
    };
    let circles = |b: &str| {
        let tree = tree(b);
        tree.circles(&tree.imports()).len()
    };
    assert_eq!(circles("pub struct B;\npub struct D;\n"), 0);
    assert_eq!(
        circles("use super::A;\nimpl A {\n    fn g(&self) {}\n}\npub struct B;\npub struct D;\n"),
        0
    );
    assert_eq!(circles("use super::A;\npub struct B;\npub struct D(A);\n"), 2);
    assert_eq!(circles("pub struct B;\npub fn g() { super::c::f(D) }\npub struct D;\n"), 2);
    assert_eq!(
        circles(
            "pub struct B;\npub struct D;\n#[cfg(test)]\nmod tests { use super::super::c::f; }\n"
        ),
        0
    );
}

/// The module of a file. `root`: the folder of its crate.
fn module_of(name: &str, root: &str) -> Option<Module> {
    let path = name.strip_prefix(root)?.strip_prefix('/')?.trim_end_matches(".rs");
    let path = path.strip_suffix("/mod").unwrap_or(path);
    let parts = path.split('/').filter(|part| !matches!(*part, "lib" | "main"));
    Some(parts.map(str::to_owned).collect())
}

impl Tree {
    /// The files below the folder `root`.
    fn of(sources: &[Source], root: &str) -> Self {
        let is_meant = |source: &&Source| !source.is_test() && source.name != "src/main.rs";
        let file = |source: &Source| Some((module_of(&source.name, root)?, File::of(source)));
        Self(sources.iter().filter(is_meant).filter_map(file).collect())
    }

    /// The absolute path of what a file names; `None` for another crate.
    fn absolute(&self, from: &Module, path: &[String]) -> Option<Module> {
        let (head, rest) = path.split_first()?;
        let below = |module: &[String], rest: &[String]| Some([module, rest].concat());
        match head.as_str() {
            "crate" => Some(rest.to_vec()),
            "self" => below(from, rest),
            "super" => {
                let up = path.iter().take_while(|part| *part == "super").count();
                below(from.get(..from.len().checked_sub(up)?)?, &path[up..])
            }
            _ if self.0.contains_key(&[from.as_slice(), std::slice::from_ref(head)].concat()) => {
                below(from, path)
            }
            _ => {
                let named = self.0.get(from)?.uses.iter().find(|used| {
                    used.name == *head && used.path.first().is_some_and(|first| first != head)
                })?;
                let module = self.absolute(from, &named.path)?;
                self.0.contains_key(&module).then(|| [module.as_slice(), rest].concat())
            }
        }
    }

    /// The file that defines what a path names, and its name there. `None` for a module itself.
    fn definition(&self, path: &[String], steps_left: usize) -> Option<(Module, String)> {
        let mut module = Module::new();
        while let Some(part) = path.get(module.len()) {
            module.push(part.clone());
            if !self.0.contains_key(&module) {
                module.pop();
                break;
            }
        }
        let name = path.get(module.len())?;
        let reexport = self.0.get(&module)?.uses.iter().find(|used| used.name == *name);
        let followed = reexport
            .filter(|_| steps_left > 0)
            .and_then(|used| self.definition(&self.absolute(&module, &used.path)?, steps_left - 1));
        Some(followed.unwrap_or_else(|| (module, name.clone())))
    }

    fn imports(&self) -> Imports {
        let mut imports = Imports::new();
        for (module, file) in &self.0 {
            // What is only handed on is no import of this file.
            let named = file.uses.iter().filter(|used| has_word(&file.body, &used.name));
            let named = named.map(|used| used.path.clone()).chain(file.paths());
            for path in named.filter_map(|path| self.absolute(module, &path)) {
                let Some((to, name)) = self.definition(&path, 6) else { continue };
                if to != *module && !(module.starts_with(&to) && file.only_extends(&name)) {
                    imports.entry(module.clone()).or_default().entry(to).or_default().insert(name);
                }
            }
        }
        imports
    }

    /// The imports that are part of a circle, a sentence each.
    fn circles(&self, imports: &Imports) -> Vec<String> {
        let mut sentences = Vec::new();
        for (from, to, names) in imports
            .iter()
            .flat_map(|(from, of_file)| of_file.iter().map(move |(to, names)| (from, to, names)))
        {
            if reaches(imports, to, from) {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                let (from, to) = (&self.0[from].name, &self.0[to].name);
                sentences.push(format!("{from} imports {to}, and back: {}", names.join(", ")));
            }
        }
        sentences
    }
}

fn reaches(imports: &Imports, from: &Module, to: &Module) -> bool {
    let mut seen = BTreeSet::from([from]);
    let mut waiting = vec![from];
    while let Some(module) = waiting.pop() {
        if module == to {
            return true;
        }
        let next = imports.get(module).into_iter().flat_map(BTreeMap::keys);
        waiting.extend(next.filter(|next| seen.insert(next)));
    }
    false
}

impl File {
    fn of(source: &Source) -> Self {
        let code = without_tests(&source.code).replace(BLANK, " ");
        let (mut body, mut uses) = (String::new(), Vec::new());
        let mut statement: Option<String> = None;
        for line in code.lines() {
            let begins = || {
                let line = line.trim_start();
                let rest = line.strip_prefix("pub").map_or(line, |rest| {
                    rest.strip_prefix('(')
                        .and_then(|rest| rest.split_once(')'))
                        .map_or(rest, |(_, rest)| rest)
                });
                rest.trim_start().strip_prefix("use ").map(str::to_owned)
            };
            match (&mut statement, begins()) {
                (Some(text), _) => text.push_str(line.trim()),
                (None, Some(text)) => statement = Some(text),
                (None, None) => body.push_str(line),
            }
            body.push('\n');
            if let Some(text) = statement.take_if(|text| text.contains(';')) {
                expand(&[], text.trim_end_matches(';'), &mut uses);
            }
        }
        Self { name: source.name.clone(), body, uses }
    }

    /// Paths in the code, such as `super::frame::encode`.
    fn paths(&self) -> Vec<Vec<String>> {
        let mut paths = Vec::new();
        let mut rest = self.body.as_str();
        while let Some(at) = rest.find("::") {
            let head = rest[..at].rfind(|char| !is_word(char)).map_or(0, |at| at + 1);
            let begins = !rest[..head].ends_with(['.', '>', '$']);
            let (mut path, mut end) = (vec![rest[head..at].to_owned()], at);
            while let Some(next) = rest[end..].strip_prefix("::") {
                let length = next.find(|char| !is_word(char)).unwrap_or(next.len());
                end += 2 + length;
                if length == 0 {
                    break;
                }
                path.push(next[..length].to_owned());
            }
            if begins && path.len() > 1 && !path[0].is_empty() {
                paths.push(path);
            }
            rest = &rest[end..];
        }
        paths
    }

    /// Whether the name occurs in the heads of `impl` blocks only.
    fn only_extends(&self, name: &str) -> bool {
        let is_head = |line: &str| line.starts_with("impl") && line.ends_with('{');
        !self.body.lines().any(|line| has_word(line, name) && !is_head(line.trim_end()))
    }
}

/// The paths of a `use`, one after the other.
fn expand(prefix: &[String], tree: &str, uses: &mut Vec<Use>) {
    let tree = tree.trim();
    if let Some((head, group)) = tree.split_once('{') {
        let head = head.split("::").map(str::trim).filter(|part| !part.is_empty());
        let prefix: Vec<String> = prefix.iter().cloned().chain(head.map(str::to_owned)).collect();
        let group = group.trim_end().strip_suffix('}').unwrap_or(group);
        let (mut depth, mut start) = (0, 0);
        for (at, char) in group.char_indices().chain([(group.len(), ',')]) {
            match char {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    expand(&prefix, &group[start..at], uses);
                    start = at + 1;
                }
                _ => {}
            }
        }
        return;
    }
    let (path, name) =
        tree.split_once(" as ").map_or((tree, None), |(path, name)| (path, Some(name)));
    let parts = path.split("::").map(str::trim).filter(|part| !part.is_empty());
    let mut path: Vec<String> = prefix.iter().cloned().chain(parts.map(str::to_owned)).collect();
    if path.last().is_some_and(|last| last == "self") && path.len() > 1 {
        path.pop();
    }
    let Some(last) = path.last().filter(|_| !tree.is_empty()) else { return };
    let name = name.map_or_else(|| last.clone(), |name| name.trim().to_owned());
    uses.push(Use { path, name });
}
