//! Takes the mailbox's sources over, with the names of loom's stand-ins for those of the world; and plants a fault, if
//! RINGVERB_FAULT names one.

use std::{env, fs, path::Path};

const STAND_INS: &[(&str, &str)] = &[
    ("std::sync::atomic", "loom::sync::atomic"),
    ("use rtrb::", "use crate::ring::"),
    ("rtrb::", "crate::ring::"),
    ("rustix::", "crate::kernel::"),
    ("std::os::fd::", "crate::kernel::"),
];

/// Name, what stands there, what is planted. `run` reads the number of faults from this type, so that the compiler
/// refuses a number that differs from the table.
const FAULTS: [(&str, &str, &str); 6] = [
    ("no second look before the sleep", "if self.has_mail(0) || self.has_mail(1) {", "if false {"),
    (
        "asleep only after the second look",
        "doorbell.set_asleep();\n        if self.has_mail(0) || self.has_mail(1) {\n            \
         doorbell.set_awake();\n            return false;\n        }",
        "if self.has_mail(0) || self.has_mail(1) {\n            return false;\n        }\n        \
         doorbell.set_asleep();",
    ),
    (
        "rung before the mail is there",
        "self.doorbells_due[usize::from(to)] = true;\n        self.mail_totals",
        "self.doorbells[usize::from(to)].ring();\n        self.mail_totals",
    ),
    (
        "no fence of the receiver",
        "self.asleep.store(true, Ordering::Relaxed);\n        fence(Ordering::SeqCst);",
        "self.asleep.store(true, Ordering::SeqCst);",
    ),
    (
        "no fence of the sender",
        "pub fn ring(&self) {\n        fence(Ordering::SeqCst);",
        "pub fn ring(&self) {",
    ),
    ("mail that waited for room does not ring", "self.doorbells_due[to] = true;", "let _ = to;"),
];

fn main() {
    let mailbox = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../src/mailbox");
    println!("cargo::rerun-if-changed={}", mailbox.display());
    println!("cargo::rerun-if-env-changed=RINGVERB_FAULT");
    let read = |name: &str| {
        let text = fs::read_to_string(mailbox.join(name)).expect("a source of the mailbox");
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let lines = code.lines().filter(|line| !line.starts_with("//!"));
        lines.collect::<Vec<_>>().join("\n")
    };
    let doorbell = format!("mod doorbell {{\n{}\n}}", read("doorbell.rs"));
    let mut text = read("mod.rs").replace("mod doorbell;", &doorbell);
    if let Ok(number) = env::var("RINGVERB_FAULT") {
        let (name, there, planted) = FAULTS[number.parse::<usize>().expect("a number")];
        assert_eq!(text.matches(there).count(), 1, "{name}: its place is not there any more");
        text = text.replace(there, planted);
        println!("cargo::rustc-env=RINGVERB_FAULT_NAME={name}");
    }
    for (world, stand_in) in STAND_INS {
        text = text.replace(world, stand_in);
    }
    let out = env::var("OUT_DIR").expect("cargo sets it");
    fs::write(Path::new(&out).join("mailbox.rs"), text).expect("the folder of the build");
}
