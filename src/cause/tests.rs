//! The table of causes: lines that fit, budgets and names.

use super::*;

#[test]
fn each_cause_has_a_name_and_a_line_of_its_own() {
    let names: std::collections::BTreeSet<_> = Cause::ALL.map(Cause::name).into();
    let lines: std::collections::BTreeSet<_> = Cause::ALL.map(Cause::template).into();
    assert_eq!((names.len(), lines.len()), (Cause::ALL.len(), Cause::ALL.len()));
    for cause in Cause::ALL {
        assert!(cause.template().matches("{}").count() <= DETAILS_MAX, "{cause:?}");
        assert!(!cause.name().contains(|one: char| !one.is_ascii_lowercase()
            && one != '_'
            && !one.is_ascii_digit()));
    }
}

/// A reader who searches the page for a line of the log finds it.
#[test]
fn the_document_of_error_texts_has_each_line() {
    let page = include_str!("../../docs/laravel-errors.md");
    let head = "| cause | line |\n|---|---|\n";
    let (before, _) = page.split_once(head).unwrap();
    let rows = Cause::ALL.map(|cause| {
        let line = cause.template().replace("{}", "…").replace('|', "\\|");
        format!("| `{}` | {line} |\n", cause.name())
    });
    crate::text::assert_document(
        "docs/laravel-errors.md",
        &format!("{before}{head}{}", rows.concat()),
    );
}

/// A line about a peer has 460 bytes (`output`), 90 of which are for its fields.
#[test]
fn the_longest_line_fits_with_the_longest_values() {
    let long = "x".repeat(10_000);
    for cause in Cause::ALL {
        let values = [Detail::text(&long), Detail::text(&long), Detail::Number(u64::MAX)];
        let bytes = cause.line(&values).len();
        assert!(bytes <= 370, "{cause:?} {bytes}");
    }
}

#[test]
fn gaps_are_filled_in_order_and_texts_of_peers_are_escaped() {
    let line = Cause::UnknownKey.line(&[Detail::text("a\n\"b")]);
    assert!(line.starts_with(r#"no app has the key "a\n\"b": is VITE_"#), "{line}");
    let values = [Detail::Subscription("room"), Detail::Number(300), Detail::Number(200)];
    let line = Cause::ChannelNameLength.line(&values);
    assert!(line.starts_with("subscription to \"room\" refused: the name has 300 bytes"), "{line}");
    assert!(
        Cause::NotJson.line(&[]).starts_with("message  is not"),
        "a gap without a value is empty"
    );
    assert!(Cause::NotJson.line(&[]).ends_with(r#"{"event":"...","data":{...}}"#));
}

/// An operator searches the log for the name in the sum of refusals.
#[test]
fn a_counter_with_one_cause_has_the_name_of_the_cause() {
    for counter in Refused::ALL {
        let mut causes = Cause::ALL.into_iter().filter(|cause| cause.counter() == counter);
        let first = causes.next().map(Cause::name);
        if causes.next().is_none() {
            assert_eq!(first, Some(counter.name()));
        }
    }
}

#[test]
fn an_unlimited_budget_leaves_nothing_out() {
    let mut budget = LineBudget::new(true);
    assert!((0..1_000).all(|_| budget.charge_line(Cause::Origin) == Some(0)));
}

#[test]
fn a_flood_of_one_cause_leaves_the_others_their_lines() {
    let mut budget = LineBudget::default();
    let written = (0..1_000).filter(|_| budget.charge_line(Cause::Origin).is_some()).count();
    assert_eq!(written, usize::from(LINES_AT_ONCE));
    assert_eq!(budget.charge_line(Cause::Quota), Some(0));
    budget.refill();
    assert_eq!(
        budget.charge_line(Cause::Origin),
        Some(980),
        "the next line tells how many were left out"
    );
    assert_eq!(budget.charge_line(Cause::Origin), None);
    (0..1_000).for_each(|_| budget.refill());
    let written = (0..1_000).filter(|_| budget.charge_line(Cause::Origin).is_some()).count();
    assert_eq!(written, usize::from(LINES_AT_ONCE), "silence saves up no more");
}
