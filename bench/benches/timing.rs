//! `cargo bench -p ringverb-bench --bench micro`: the time of each case.

mod micro;
mod setup;

use divan::counter::ItemsCount;

fn main() {
    divan::main();
}

fn names() -> impl Iterator<Item = &'static str> {
    micro::CASES.iter().map(|case| case.name)
}

#[divan::bench(args = names())]
fn micro_case(bencher: divan::Bencher<'_, '_>, name: &str) {
    let case = micro::CASES.iter().find(|case| case.name == name).expect("named by `names`");
    let run = (case.set_up)();
    bencher.counter(ItemsCount::new(case.items)).bench_local(run);
}
