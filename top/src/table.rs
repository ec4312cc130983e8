//! The two tables, as columns of words: for the screen and for `--once`.

use crate::view::{CallbackRow, QueueRow, Sort};
use crate::words::{age, count, plain, rate, time};

pub(crate) struct Column<T> {
    pub(crate) title: &'static str,
    /// 0: the name, which gets what is left.
    pub(crate) width: u16,
    /// Shown where the table is this wide.
    from: u16,
    pub(crate) sort: Option<Sort>,
    pub(crate) cell: fn(&T) -> String,
}

/// Between two columns.
pub(crate) const GAP: u16 = 1;

const fn column<T>(
    title: &'static str,
    width: u16,
    from: u16,
    sort: Option<Sort>,
    cell: fn(&T) -> String,
) -> Column<T> {
    Column { title, width, from, sort, cell }
}

fn or_dash<T>(value: Option<T>, words: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), words)
}

/// What has no name is called by what it is.
fn called(name: &str, otherwise: &str) -> String {
    plain(if name.is_empty() { otherwise } else { name })
}

pub(crate) const CALLBACKS: [Column<CallbackRow>; 12] = [
    column("CALLBACK", 0, 0, Some(Sort::Name), |it| called(&it.name, &it.function)),
    column("SCOPE", 14, 110, None, |it| plain(&it.scope)),
    column("CALLS/S", 8, 0, Some(Sort::Rate), |it| or_dash(it.calls_per_second, rate)),
    column("P50", 6, 0, None, |it| or_dash(it.latency.or(it.latency_total), |it| time(it.p50_ns))),
    column("P99", 6, 0, Some(Sort::P99), |it| {
        or_dash(it.latency.or(it.latency_total), |it| time(it.p99_ns))
    }),
    column("INSIDE", 7, 0, Some(Sort::Inside), |it| count(it.in_flight)),
    column("FAILS/S", 8, 0, Some(Sort::Failures), |it| or_dash(it.failures_per_second, rate)),
    column("FAILS", 9, 90, None, |it| or_dash(it.failures, count)),
    column("CALLS", 14, 80, Some(Sort::Calls), |it| or_dash(it.calls, count)),
    column("REFS", 5, 120, None, |it| count(it.references)),
    column("AGE", 7, 70, Some(Sort::Age), |it| or_dash(it.age_ns, age)),
    column("HANDLE", 18, 140, None, |it| it.handle.clone()),
];

pub(crate) const QUEUES: [Column<QueueRow>; 12] = [
    column("QUEUE", 0, 0, None, |it| called(&it.name, &it.handle)),
    column("SCOPE", 14, 110, None, |it| plain(&it.scope)),
    column("DEPTH", 8, 0, None, |it| count(it.depth)),
    column("CAPACITY", 9, 0, None, |it| count(it.capacity)),
    column("IN/S", 7, 0, None, |it| or_dash(it.posted_per_second, rate)),
    column("OUT/S", 7, 0, None, |it| or_dash(it.dispatched_per_second, rate)),
    column("DROPS/S", 8, 0, None, |it| or_dash(it.dropped_per_second, rate)),
    column("DROPPED", 10, 80, None, |it| count(it.dropped)),
    column("FULL/S", 7, 90, None, |it| or_dash(it.refused_per_second, rate)),
    column("BLOCKED", 9, 120, None, |it| count(it.blocked)),
    column("WAIT P99", 9, 100, None, |it| or_dash(it.wait.or(it.wait_total), |it| time(it.p99_ns))),
    column("HANDLE", 18, 140, None, |it| it.handle.clone()),
];

/// The columns that a table of this width has.
pub(crate) fn shown<T>(columns: &[Column<T>], width: u16) -> impl Iterator<Item = &Column<T>> {
    columns.iter().filter(move |it| it.from <= width)
}

/// The table as text, as wide as it has to be.
pub(crate) fn text<T>(columns: &[Column<T>], rows: &[T]) -> String {
    let mut lines = vec![String::new(); rows.len() + 1];
    for (number, column) in shown(columns, u16::MAX).enumerate() {
        let cells: Vec<_> = rows.iter().map(|row| (column.cell)(row)).collect();
        let words = || std::iter::once(column.title).chain(cells.iter().map(String::as_str));
        let width = words().map(|it| it.chars().count()).max().unwrap_or(0);
        for (line, word) in lines.iter_mut().zip(words()) {
            match (number, is_left(column)) {
                (0, _) => *line += &format!("{word:width$}"),
                (_, true) => *line += &format!("  {word:width$}"),
                (_, false) => *line += &format!("  {word:>width$}"),
            }
        }
    }
    lines.iter().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// Words begin on the left, numbers end on the right.
pub(crate) fn is_left<T>(column: &Column<T>) -> bool {
    column.width == 0 || column.title == "SCOPE" || column.title == "HANDLE"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::places::Places;
    use crate::view::{View, tests::two_documents};

    fn view() -> View {
        let [before, now] = two_documents();
        let mut view = View::new(&now, Some(&before), &mut Places::default());
        view.sort(Sort::Rate);
        view
    }

    #[test]
    fn the_text_has_every_column_one_below_the_other() {
        let view = view();
        assert_eq!(
            text(&CALLBACKS, &view.callbacks.rows),
            "CALLBACK  SCOPE   CALLS/S   P50   P99  INSIDE  FAILS/S  FAILS  CALLS  REFS  AGE  HANDLE\n\
             slow                   10  50ns  99ns       2      0.5      2     30     4    -  0x1\n\
             new                     -  50ns  99ns       0        -      0    500     0    -  0x3\n\
             plain     plugin        -     -     -       0        -      -      -     0   4s  0x2\n"
        );
        assert_eq!(
            text(&QUEUES, &view.queues.rows),
            "QUEUE   SCOPE  DEPTH  CAPACITY  IN/S  OUT/S  DROPS/S  DROPPED  FULL/S  BLOCKED  WAIT P99  HANDLE\n\
             events             8         8    50    5.0      3.0        9     0.5        0         -  0xa\n"
        );
    }

    /// Beside a name that can be read.
    #[test]
    fn what_is_shown_fits() {
        fn needs<T>(columns: &[Column<T>], width: u16) -> u16 {
            shown(columns, width).map(|it| it.width + GAP).sum::<u16>() - GAP
        }
        for width in [60, 70, 80, 90, 100, 110, 120, 140, 200] {
            for needed in [needs(&CALLBACKS, width), needs(&QUEUES, width)] {
                assert!(width >= needed + (width / 5).min(16), "{width}: {needed}");
            }
        }
    }
}
