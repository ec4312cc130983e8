//! What the documents say of the metrics is what the contract says. `scripts/contract` has this write it.

use crate::engine::histogram::BOUNDS;
use crate::features::observe::contract::{Kind, METRICS, Metric, SCOPE_LABEL, Signal, Stability};
use std::fmt::Write;
use std::path::{Path, PathBuf};

const SIGNALS: [(Signal, &str, &str); 5] = [
    (Signal::Calls, "calls", "is it used as much as always?"),
    (Signal::Failures, "failures", "do calls fail, and why; does somebody call what is gone?"),
    (Signal::Latency, "latency", "how long do calls take, and how long do events wait?"),
    (Signal::Queues, "queues", "do they fill up, and is anything dropped or refused?"),
    (Signal::Lives, "lives", "do callbacks pile up, and do those that have ended go away?"),
];

/// The samples' names, without what a histogram appends.
fn full_name(metric: &Metric) -> String {
    format!("{}{}", metric.name, metric.kind.suffix())
}

fn signal_name(signal: Signal) -> &'static str {
    SIGNALS.iter().find(|(it, ..)| *it == signal).unwrap().1
}

/// For `docs/METRICS.md`.
fn table() -> String {
    let mut text = String::from(
        "| metric | type | unit | labels | of a scope | signal | stability | what it says |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for metric in &METRICS {
        let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let stability = match metric.stability {
            Stability::Stable => "stable",
            Stability::Trial => "trial",
        };
        writeln!(
            text,
            "| `{}` | {} | {} | {} | {} | {} | {stability} | {} |",
            full_name(metric),
            metric.kind.name(),
            metric.unit,
            labels.join(", "),
            if metric.of_scope { "yes" } else { "" },
            metric.signal.map_or("", signal_name),
            metric.help,
        )
        .unwrap();
    }
    text
}

fn signals() -> String {
    let mut text = String::from("| signal | question | metrics |\n|---|---|---|\n");
    for (signal, name, question) in SIGNALS {
        let of_signal = METRICS.iter().filter(|metric| metric.signal == Some(signal));
        let names: Vec<_> = of_signal.map(|metric| format!("`{}`", full_name(metric))).collect();
        assert!(!names.is_empty(), "no metric for {name}");
        writeln!(text, "| **{name}** | {question} | {} |", names.join(", ")).unwrap();
    }
    text
}

fn buckets() -> String {
    let bounds: Vec<_> = BOUNDS.iter().map(|(_, seconds)| format!("`{seconds}`")).collect();
    let mut text = String::new();
    for line in bounds.chunks(9) {
        writeln!(text, "{},", line.join(", ")).unwrap();
    }
    text + "`+Inf`\n"
}

/// For the header.
fn comment() -> String {
    let mut text = String::new();
    let mut line = |words: &str| {
        let mut rest = words;
        while !rest.is_empty() {
            let indent = if rest.len() == words.len() { " - " } else { "   " };
            let end = match rest.len() {
                0..100 => rest.len(),
                _ => rest[..100].rfind(' ').unwrap(),
            };
            writeln!(text, "///{indent}{}", &rest[..end]).unwrap();
            rest = rest[end..].trim_start();
        }
    };
    for metric in &METRICS {
        let mut labels = metric.labels.join(", ");
        if !labels.is_empty() {
            labels = format!("{{{labels}}}");
        }
        let unit = if metric.unit.is_empty() { "" } else { " in seconds" };
        let scope = if metric.of_scope { " (scope)" } else { "" };
        let (kind, help) = (metric.kind.name(), metric.help);
        line(&format!("{}{labels}, {kind}{unit}{scope}: {help}", full_name(metric)));
    }
    // The list ends.
    text + "///\n"
}

/// Compares what stands between the marks `name: begin` and `name: end` with `fresh`, or writes it.
fn check_part(file: &Path, begin: &str, end: &str, fresh: &str) {
    let text = std::fs::read_to_string(file).unwrap();
    let from = text.find(begin).expect("the mark at the beginning") + begin.len();
    let until = from + text[from..].find(end).expect("the mark at the end");
    if std::env::var_os("CALLBRIDGE_CONTRACT").is_some_and(|what| what == "write") {
        std::fs::write(file, [&text[..from], fresh, &text[until..]].concat()).unwrap();
    } else {
        assert_eq!(
            &text[from..until],
            fresh,
            "{} is not fresh: run scripts/contract",
            file.display()
        );
    }
}

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

#[test]
#[cfg_attr(miri, ignore = "reads files")]
fn the_documents_say_what_the_contract_says() {
    let parts = [("metrics", table()), ("signals", signals()), ("buckets", buckets())];
    for (name, fresh) in parts {
        let (begin, end) = (format!("<!-- {name}: begin -->\n"), format!("<!-- {name}: end -->"));
        check_part(&path("docs/METRICS.md"), &begin, &end, &fresh);
    }
    let (begin, end) = ("// contract: begin\n", "// contract: end");
    check_part(&path("src/ffi/metrics.rs"), begin, end, &comment());
}

/// The rules for alerts that are to be copied.
#[test]
#[cfg_attr(miri, ignore = "reads files")]
fn alerts_are_about_metrics_of_the_contract_and_all_golden_signals_have_some() {
    let rules = std::fs::read_to_string(path("docs/callbridge.rules.yml")).unwrap();
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let names: Vec<_> = rules
        .split(|letter| !is_part(letter))
        .filter(|word| word.starts_with("callbridge_"))
        .collect();
    for name in &names {
        let is_it = |metric: &&Metric| match metric.kind {
            Kind::Histogram => ["_bucket", "_count", "_sum"]
                .iter()
                .any(|suffix| name.strip_suffix(suffix) == Some(metric.name)),
            _ => *name == full_name(metric),
        };
        assert!(METRICS.iter().any(|metric| is_it(&metric)), "{name} is not in the contract");
    }
    for (signal, name, _) in SIGNALS {
        assert!(rules.contains(&format!("signal: {name}\n")), "no alert for {name}");
        let of_signal = |metric: &&Metric| metric.signal == Some(signal);
        let is_used = |metric: &Metric| names.iter().any(|used| used.starts_with(metric.name));
        assert!(METRICS.iter().filter(of_signal).any(is_used), "no alert uses a metric of {name}");
    }
}

#[test]
fn the_contract_is_good_openmetrics() {
    let mut samples = Vec::new();
    for metric in &METRICS {
        let name = metric.name;
        assert!(name.starts_with("callbridge_"), "{name}");
        let is_good = |letter: char| letter.is_ascii_lowercase() || letter == '_';
        assert!(name.chars().all(is_good), "{name}");
        for suffix in ["_total", "_info", "_bucket", "_count", "_sum", "_created"] {
            assert!(!name.ends_with(suffix), "{name}: the type appends that");
        }
        assert_eq!(name.ends_with(&format!("_{}", metric.unit)), !metric.unit.is_empty(), "{name}");
        assert!(metric.help.ends_with('.') && metric.help.len() < 200, "{name}");
        assert!(!metric.help.contains(['|', '\n', '"', '\\']), "{name}: for the table");
        for label in metric.labels {
            assert!(label.chars().all(is_good), "{name}: {label}");
            assert!(![SCOPE_LABEL, "le", "quantile", "job", "instance"].contains(label), "{name}");
        }
        match metric.kind {
            Kind::Histogram => {
                samples.extend(["_bucket", "_count", "_sum"].map(|it| format!("{name}{it}")));
            }
            _ => samples.push(full_name(metric)),
        }
        samples.push(name.to_owned());
    }
    samples.dedup();
    let count = samples.len();
    samples.sort_unstable();
    samples.dedup();
    assert_eq!(samples.len(), count, "two samples have one name: {samples:?}");
}
