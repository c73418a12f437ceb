//! What the reader of PHP arrays makes of files, also of hostile ones.

use super::*;
use proptest::prelude::*;

fn scalar(text: &str) -> PhpValue {
    PhpValue::Scalar(text.to_owned())
}

fn env(name: &str, default: PhpValue) -> EnvCall {
    EnvCall { name: name.to_owned(), default: Box::new(default) }
}

/// The value of the key `a`.
fn value(code: &str) -> PhpValue {
    let read = parse_returned_array(&format!("<?php\nreturn ['a' => {code}, 'b' => 1];"));
    let Some(PhpValue::Array(elements)) = read else { panic!("{code}: {read:?}") };
    assert_eq!(elements.len(), 2, "{code}: {elements:?}");
    assert_eq!(elements[1], (Some("b".to_owned()), scalar("1")), "{code}");
    assert_eq!(elements[0].0.as_deref(), Some("a"), "{code}");
    elements[0].1.clone()
}

#[test]
fn php_literals_have_their_values() {
    for (code, expected) in [
        ("'x'", "x"),
        (r"'it\'s \\ \n'", r"it's \ \n"),
        (r#""tab\t \"q\" \$x""#, "tab\t \"q\" $x"),
        ("10_000", "10000"),
        ("-1", "-1"),
        ("1.5", "1.5"),
        ("60 * 60", "3600"),
        ("1024*1024 * 2", "2097152"),
        ("TRUE", "true"),
        ("false", "false"),
        ("'=>, ] // no comment'", "=>, ] // no comment"),
        ("/* ' */ 'x' // ']\n", "x"),
        ("'x' # ']\n", "x"),
    ] {
        assert_eq!(value(code), scalar(expected), "{code}");
    }
    assert_eq!(value("NULL"), PhpValue::Null);
    let list = PhpValue::Array(vec![(None, scalar("x")), (None, scalar("y"))]);
    for code in ["['x', 'y']", "['x','y',]", "array('x', 'y')", "[\n'x', // first\n'y',\n]"] {
        assert_eq!(value(code), list, "{code}");
    }
    assert_eq!(value("[]"), PhpValue::Array(Vec::new()));
}

#[test]
fn calls_of_env_have_name_and_default() {
    for (code, name, default) in [
        ("env('X')", "X", PhpValue::Null),
        ("env(\"X\", 5)", "X", scalar("5")),
        ("env('X', 5,)", "X", scalar("5")),
        ("\\env('X', env('Y', 'z'))", "X", PhpValue::Env(env("Y", scalar("z")))),
        ("ENV('X', null)", "X", PhpValue::Null),
    ] {
        assert_eq!(value(code), PhpValue::Env(env(name, default)), "{code}");
    }
}

#[test]
fn an_expression_of_php_is_code_with_its_calls_of_env() {
    for code in [
        "$origins",
        "\"$origins\"",
        "\"{$origins}\"",
        "config('app.url')",
        "'a' . 'b'",
        "App::class",
        "fn () => ['x', 'y']",
        "static function () { return ['x' => [1, 2]]; }",
        "['x'] + ['y']",
        "...['x']",
        "match (true) { $a => 'b', default => 'c' }",
        "<<<TEXT\n  '] => TEXTUAL\n  TEXT",
        "<<<'TEXT'\n']\nTEXT",
        "$a ? 'b' : 'c'",
        "new Foo(['a' => 1])",
        "env($name)",
    ] {
        assert_eq!(value(code), PhpValue::Code(Vec::new()), "{code}");
    }
    let calls = |pairs: &[(&str, PhpValue)]| {
        PhpValue::Code(pairs.iter().map(|(name, default)| env(name, default.clone())).collect())
    };
    assert_eq!(value("(int) env('X', 5)"), calls(&[("X", scalar("5"))]));
    assert_eq!(value("explode(',', env('X', '*'))"), calls(&[("X", scalar("*"))]));
    assert_eq!(
        value("array_filter(array_map('trim', explode(',', (string) env('X', env('Y', '')))))"),
        calls(&[("X", PhpValue::Code(Vec::new())), ("Y", scalar(""))])
    );
    assert_eq!(value("env('X', 'https') === 'https'"), calls(&[("X", scalar("https"))]));
}

#[test]
fn the_returned_array_is_found() {
    for text in [
        "<?php return ['a' => 1];",
        "#!/usr/bin/php\n<?php\ndeclare(strict_types=1);\nuse A\\B;\nreturn ['a' => 1];",
        "<?php\n$f = function () { return []; };\nif ($x) { return ['z']; }\nreturn ['a' => 1];",
        "<?php return array('a' => 1); ?> return ['b'];",
        "<?php // return ['z'];\n/* return */ return ['a' => 1];",
    ] {
        let expected = PhpValue::Array(vec![(Some("a".to_owned()), scalar("1"))]);
        assert_eq!(parse_returned_array(text), Some(expected), "{text}");
    }
    for text in ["", "<?php", "return ['a'];", "<?php return", "<?php return $x;", "<?php return ["]
    {
        assert_eq!(parse_returned_array(text), None, "{text}");
    }
    assert_eq!(
        parse_returned_array(&format!("<?php return ['a'];{}", " ".repeat(BYTES_MAX))),
        None
    );
}

/// Each of these costs time or stack that grows faster than the text, if a reader is careless.
#[test]
fn hostile_files_are_read_in_linear_time() {
    for unit in [
        "[", "env(", "env('a',", "(", "{", "['a'=>[", "'", "\"", "<<<A\n", "/*", "fn()=>", "[]+[",
        "a([",
    ] {
        let many = unit.repeat(BYTES_MAX / unit.len() - 16);
        let _ = parse_returned_array(&format!("<?php return [{many}"));
    }
}

proptest! {
        #[test]
        fn any_text_is_answered(text in "[\\[\\](){}'\"$,;=>*/#<?a-c0-2\\\\ \n.-]{0,60}") {
            let _ = parse_returned_array(&format!("<?php return ['a' => {text}"));
            let _ = parse_returned_array(&format!("<?php return [{text}];"));
    }
}
