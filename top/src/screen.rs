//! Drawing.

use crate::app::App;
use crate::table::{CALLBACKS, Column, GAP, QUEUES, is_left, shown};
use crate::view::{CallbackRow, QueueRow, Sort, View};
use crate::words::{age, count, plain, rate};
use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Cell, Paragraph, Row, Table};

const ALARM: Style = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);
const DIM: Style = Style::new().add_modifier(Modifier::DIM);
const TITLES: Style = Style::new().add_modifier(Modifier::REVERSED);

/// The process, and what all its callbacks and queues do.
pub(crate) fn summary(view: &View) -> [String; 3] {
    let per_second = |name| view.stat_per_second(name).map_or_else(|| "-".to_owned(), rate);
    let stat = |name| count(view.stat(name));
    let mut callbacks = format!("callbacks {}", stat("live"));
    if view.stat("destroy_pending") > 0 {
        callbacks += &format!(" and {} ending", stat("destroy_pending"));
    }
    let process = format!(
        "{}  pid {}  up {}  {callbacks}  threads {}  thunks {}",
        plain(&view.name),
        view.pid,
        age(view.uptime_ns),
        stat("threads"),
        stat("thunks"),
    );
    let calls = format!(
        "calls {}/s  failed {}/s  stale {}/s  inside {}",
        per_second("calls"),
        per_second("failures"),
        per_second("stale"),
        stat("in_flight"),
    );
    let queues = format!(
        "queues {}  waiting {}  in {}/s  out {}/s  dropped {}/s  refused {}/s",
        stat("queues"),
        stat("queued"),
        per_second("posted"),
        per_second("dispatched"),
        per_second("dropped"),
        per_second("refused"),
    );
    [process, calls, queues]
}

pub(crate) fn draw(frame: &mut Frame<'_>, app: &mut App) {
    let area = frame.area();
    let queues = app.view.as_ref().map_or(0, |view| view.queues.rows.len());
    // At most a third, with its titles and the line below.
    let room = match queues {
        0 => 0,
        _ => (queues + 2).min(usize::from(area.height / 3)) as u16,
    };
    let parts = [
        Constraint::Length(4),
        Constraint::Length(room),
        Constraint::Min(0),
        Constraint::Length(1),
    ];
    let [head, top, middle, foot] = Layout::vertical(parts).areas(area);
    draw_head(frame, app, head);
    draw_tables(frame, app, top, middle);
    draw_foot(frame, app, foot);
}

fn draw_tables(frame: &mut Frame<'_>, app: &mut App, top: Rect, middle: Rect) {
    let Some(view) = &app.view else { return };
    if top.height > 1 {
        // The line below stays free.
        let count = view.queues.rows.len().min(usize::from(top.height) - 2);
        let rows = &view.queues.rows[..count];
        frame.render_widget(table(&QUEUES, rows, top.width, None, &queue_style), top);
    }
    app.page = usize::from(middle.height.saturating_sub(1)).max(1);
    app.first = app.first.min(view.callbacks.rows.len().saturating_sub(app.page));
    let rows = &view.callbacks.rows[app.first..];
    let rows = &rows[..rows.len().min(app.page)];
    let callbacks = table(&CALLBACKS, rows, middle.width, Some(app.sort), &callback_style);
    frame.render_widget(callbacks, middle);
}

fn draw_head(frame: &mut Frame<'_>, app: &App, area: Rect) {
    let mut lines = Vec::new();
    if let Some(view) = &app.view {
        let [process, calls, queues] = summary(view);
        let (name, rest) = process.split_once("  ").unwrap_or((&process, ""));
        lines.push(Line::from(vec![
            Span::styled(name.to_owned(), Style::new().add_modifier(Modifier::BOLD)),
            Span::raw(format!("  {rest}")),
        ]));
        lines.extend([Line::raw(calls), Line::raw(queues)]);
    }
    if let Some(words) = &app.lost {
        lines.push(Line::styled(plain(words), ALARM));
    } else if app.view.is_none() {
        lines.push(Line::raw("waiting for an answer"));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

fn draw_foot(frame: &mut Frame<'_>, app: &App, area: Rect) {
    let words = match &app.typed {
        Some(typed) => format!("filter: {typed}_   Enter: apply   Esc: no filter"),
        None => {
            let mut words = format!("q quit   s sort: {}   / filter", app.sort.name());
            if !app.filter.is_empty() {
                words += &format!(": {}", app.filter);
            }
            if let Some(view) = &app.view {
                let callbacks = &view.callbacks;
                let first = (app.first + 1).min(callbacks.rows.len());
                let last = (app.first + app.page).min(callbacks.rows.len());
                words += &format!("   {first}-{last} of {}", count(callbacks.total));
                if callbacks.truncated > 0 {
                    words += &format!(" ({} not fetched)", count(callbacks.truncated));
                }
            }
            words
        }
    };
    frame.render_widget(Paragraph::new(Line::styled(words, DIM)), area);
}

fn callback_style(row: &CallbackRow, title: &str) -> Style {
    let fails = row.failures_per_second.is_some_and(|rate| rate > 0.0);
    if fails && title == "FAILS/S" { ALARM } else { Style::new() }
}

fn queue_style(row: &QueueRow, title: &str) -> Style {
    let some = |rate: Option<f64>| rate.is_some_and(|rate| rate > 0.0);
    let is_alarming = match title {
        "DROPS/S" => some(row.dropped_per_second),
        "FULL/S" => some(row.refused_per_second),
        "DEPTH" => row.depth >= row.capacity,
        _ => false,
    };
    if is_alarming { ALARM } else { Style::new() }
}

fn table<'a, T>(
    columns: &[Column<T>],
    rows: &[T],
    width: u16,
    sort: Option<Sort>,
    style: &dyn Fn(&T, &str) -> Style,
) -> Table<'a> {
    let columns: Vec<_> = shown(columns, width).collect();
    let cell = |words: String, column: &Column<T>, style| {
        let side = if is_left(column) { Alignment::Left } else { Alignment::Right };
        Cell::new(Text::from(words).alignment(side)).style(style)
    };
    let titles = columns.iter().map(|column| {
        let is_sorted = sort.is_some() && column.sort == sort;
        let bold =
            if is_sorted { Modifier::BOLD | Modifier::UNDERLINED } else { Modifier::empty() };
        cell(column.title.to_owned(), column, Style::new().add_modifier(bold))
    });
    let titles = Row::new(titles.collect::<Vec<_>>()).style(TITLES);
    let lines = rows.iter().map(|row| {
        let cells = columns.iter().map(|it| cell((it.cell)(row), it, style(row, it.title)));
        Row::new(cells.collect::<Vec<_>>())
    });
    let widths = columns.iter().map(|column| match column.width {
        0 => Constraint::Fill(1),
        width => Constraint::Length(width),
    });
    Table::new(lines.collect::<Vec<_>>(), widths.collect::<Vec<_>>())
        .header(titles)
        .column_spacing(GAP)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::tests::app;
    use crate::watch::News;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn drawn(app: &mut App, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, app)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let cells: Vec<_> = buffer.content.iter().map(|cell| cell.symbol()).collect();
        let lines =
            cells.chunks(usize::from(width)).map(|line| line.concat().trim_end().to_owned());
        lines.collect()
    }

    #[test]
    fn everything_is_on_the_screen() {
        assert_eq!(
            drawn(&mut app(), 80, 14),
            [
                "host  pid 7  up 4s  callbacks 3  threads 2  thunks 0",
                "calls 100/s  failed 0.5/s  stale 0/s  inside 0",
                "queues 1  waiting 0  in 0/s  out 0/s  dropped 3.0/s  refused 0/s",
                "",
                "QUEUE                        DEPTH  CAPACITY    IN/S   OUT/S  DROPS/S    DROPPED",
                "events                           8         8      50     5.0      3.0          9",
                "",
                "CALLBACK           CALLS/S    P50    P99  INSIDE  FAILS/S          CALLS     AGE",
                "slow                    10   50ns   99ns       2      0.5             30       -",
                "new                      -   50ns   99ns       0        -            500       -",
                "plain                    -      -      -       0        -              -      4s",
                "",
                "",
                "q quit   s sort: rate   / filter   1-3 of 9 (6 not fetched)",
            ]
        );
    }

    #[test]
    fn what_does_not_fit_is_scrolled() {
        let mut app = app();
        app.first = 100;
        let lines = drawn(&mut app, 60, 10);
        assert_eq!(app.first, 2);
        assert!(lines[7].starts_with("CALLBACK") && lines[8].starts_with("plain"), "{lines:#?}");
        assert!(lines[9].contains("3-3 of 9"), "{lines:#?}");
    }

    #[test]
    fn no_size_is_too_small() {
        for (width, height) in [(1, 1), (5, 3), (20, 5), (200, 2), (2, 60)] {
            drawn(&mut app(), width, height);
        }
    }

    #[test]
    fn a_process_that_is_gone_is_said_and_its_numbers_stay() {
        let mut app = app();
        app.take(News::Lost("it has\x1b ended".to_owned()));
        let lines = drawn(&mut app, 80, 14);
        assert_eq!(lines[3], "it has? ended");
        assert!(lines[8].starts_with("slow"));
    }

    #[test]
    fn who_types_sees_it() {
        let mut app = app();
        app.typed = Some("ab".to_owned());
        assert!(drawn(&mut app, 80, 14)[13].starts_with("filter: ab_"));
    }
}
