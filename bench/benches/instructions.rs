//! Runs one case so many times, to be counted from outside: `instructions NAME COUNT`. Without
//! arguments it lists the cases and what one run of each does.

mod micro;
mod setup;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let [name, count] = words.as_slice() else {
        for case in micro::CASES {
            println!("{} {}", case.name, case.items);
        }
        return;
    };
    let case = micro::CASES.iter().find(|case| case.name == name).expect("a case of the list");
    let count: u32 = count.parse().expect("a number of runs");
    let mut run = (case.set_up)();
    for _ in 0..count {
        run();
    }
}
