//! Names of tests in the text of sources: a function counts as a test only if it is run as one.

use std::path::Path;

pub(super) fn php_text_in(folder: &Path) -> String {
    let entries = std::fs::read_dir(folder).expect("a folder of tests");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let paths = paths.filter(|path| path.extension().is_some_and(|extension| extension == "php"));
    paths.map(|path| std::fs::read_to_string(path).expect("a test")).collect()
}

/// PHPUnit runs each public method whose name begins with `test`.
pub(super) fn has_php_test(sources: &str, name: &str) -> bool {
    let head = format!("public function {name}(");
    name.starts_with("test_") && sources.lines().any(|line| line.trim().starts_with(&head))
}

/// Whether the sources have a function of this name that is run as a test: `#[test]` stands above it, with nothing but
/// other attributes and comments between, and nothing switches it off.
pub(super) fn has_test(sources: &str, name: &str) -> bool {
    let head = format!("fn {name}(");
    let mut attributes = Vec::new();
    for line in sources.lines().map(str::trim) {
        if line.starts_with("#[") {
            attributes.push(line);
        } else if line.starts_with(&head) {
            if attributes.contains(&"#[test]")
                && !attributes.iter().any(|one| one.starts_with("#[ignore"))
            {
                return true;
            }
            attributes.clear();
        } else if !line.starts_with("//") {
            attributes.clear();
        }
    }
    false
}

#[test]
fn a_function_is_a_test_only_with_its_attribute() {
    assert!(has_test("#[test]\n/// Why.\n#[expect(x)]\n    fn a() {\n", "a"));
    assert!(has_test("fn a() {\n}\n#[test]\nfn a() {\n", "a"));
    assert!(!has_test("fn a() {\n", "a"));
    assert!(!has_test("#[test]\nfn b() {\n}\nfn a() {\n", "a"));
    assert!(!has_test("#[test]\n#[ignore = \"slow\"]\nfn a() {\n", "a"));
    assert!(!has_test("#[test]\nfn ab() {\n", "a"));
    assert!(has_php_test("{\n    public function test_a(): void\n", "test_a"));
    assert!(!has_php_test("{\n    public function test_ab(): void\n", "test_a"));
    assert!(!has_php_test("{\n    // public function test_a(): void\n", "test_a"));
}
