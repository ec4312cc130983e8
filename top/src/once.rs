//! `--once`: two looks, and what was between them.

use crate::args::Args;
use crate::client::Question;
use crate::places::Places;
use crate::screen::summary;
use crate::table;
use crate::target::Target;
use crate::view::View;
use crate::watch::{News, Watch};
use std::io::{self, Write};
use std::time::Duration;

/// Longer than the library takes for an answer, or a client waits for one.
const PATIENCE: Duration = Duration::from_secs(15);

/// Fails with words for people.
pub(crate) fn run(args: &Args, target: Target) -> Result<(), String> {
    let question =
        Question { rows: args.rows, order: args.sort.order(), part: args.filter.clone() };
    let watch = Watch::new(target, question, args.interval);
    let look = |patience| match watch.news.recv_timeout(patience) {
        Ok(News::Document(pid, document)) => Ok((pid, document)),
        Ok(News::Lost(words)) => Err(words),
        Err(_) => Err("the process does not answer: is it stopped?".to_owned()),
    };
    let (_, before) = look(PATIENCE)?;
    let (pid, now) = look(PATIENCE + args.interval)?;
    let mut view = View::new(&now, Some(&before), &mut Places::new(pid));
    view.sort(args.sort);
    let text = match args.json {
        true => serde_json::to_string_pretty(&view).map_err(|error| error.to_string())? + "\n",
        false => tables(&view),
    };
    match io::stdout().lock().write_all(text.as_bytes()) {
        // Who reads has seen enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.to_string()),
        _ => Ok(()),
    }
}

fn tables(view: &View) -> String {
    let mut text = summary(view).map(|line| line + "\n").concat();
    if !view.queues.rows.is_empty() {
        text += "\n";
        text += &table::text(&table::QUEUES, &view.queues.rows);
    }
    text += "\n";
    text += &table::text(&table::CALLBACKS, &view.callbacks.rows);
    let truncated = view.callbacks.truncated;
    if truncated > 0 {
        text += &format!("and {} more\n", crate::words::count(truncated));
    }
    text
}
