//! A live view of the callbacks and queues of a process: asks its library over the socket that
//! `CALLBRIDGE_STATS_SOCKET` names, and shows what has happened between two answers.

mod app;
mod args;
mod client;
mod document;
mod once;
mod places;
mod screen;
mod table;
mod target;
mod times;
mod view;
mod watch;
mod words;

use app::{App, Wish};
use args::{Args, Command};
use ratatui::crossterm::event::{self, Event};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use target::Target;
use watch::Watch;

const FAILURE: u8 = 1;
const USAGE: u8 = 2;
/// How long keys, signals and answers may wait for each other.
const TICK: Duration = Duration::from_millis(50);

fn main() -> ExitCode {
    let args = match args::parse(std::env::args_os().skip(1)) {
        Ok(Command::Watch(args)) => args,
        Ok(Command::Help) => return print(args::HELP),
        Ok(Command::Version) => {
            return print(concat!("callbridge-top ", env!("CARGO_PKG_VERSION"), "\n"));
        }
        Err(words) => {
            eprintln!("callbridge-top: {}; --help says more", words::plain(&words));
            return USAGE.into();
        }
    };
    let result = Target::find(&args.target).and_then(|target| match args.once {
        true => once::run(&args, target).map(|()| ExitCode::SUCCESS),
        false => show(&args, target),
    });
    result.unwrap_or_else(|words| {
        eprintln!("callbridge-top: {}", words::plain(&words));
        FAILURE.into()
    })
}

/// Who reads may go.
fn print(text: &str) -> ExitCode {
    let _ = io::stdout().lock().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

/// On the terminal, until somebody has seen enough.
fn show(args: &Args, target: Target) -> Result<ExitCode, String> {
    if !io::stdout().is_terminal() {
        return Err("there is no terminal to draw on: use --once".to_owned());
    }
    let mut app = App::new(args);
    let watch = Watch::new(target, app.question(), args.interval);
    // What cannot be watched at all is said where it stays.
    match watch.news.recv() {
        Ok(watch::News::Lost(words)) => return Err(words),
        Ok(news) => app.take(news),
        Err(_) => return Err("there is nobody who looks".to_owned()),
    }
    let signal = Arc::new(AtomicUsize::new(0));
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM]).map_err(|error| error.to_string())?;
    let seen = signal.clone();
    std::thread::spawn(move || {
        if let Some(number) = signals.forever().next() {
            seen.store(number as usize, Ordering::Relaxed);
            // Who draws ends now, unless the terminal is gone: then it reads and reads.
            std::thread::sleep(10 * TICK);
            let _ = ratatui::try_restore();
            std::process::exit(128 + number);
        }
    });
    // A panic restores the terminal as well.
    let mut terminal = ratatui::try_init().map_err(|error| error.to_string())?;
    let result = run(&mut terminal, &mut app, &watch, &signal);
    ratatui::try_restore().and(result).map_err(|error| error.to_string())
}

fn run(
    terminal: &mut ratatui::DefaultTerminal,
    app: &mut App,
    watch: &Watch,
    signal: &AtomicUsize,
) -> io::Result<ExitCode> {
    let mut is_old = true;
    loop {
        if is_old {
            terminal.draw(|frame| screen::draw(frame, app))?;
            is_old = false;
        }
        match signal.load(Ordering::Relaxed) {
            0 => {}
            number => return Ok(ExitCode::from(128 + number as u8)),
        }
        if event::poll(TICK)? {
            is_old = true;
            if let Event::Key(key) = event::read()? {
                match app.press(key) {
                    Wish::Nothing => {}
                    Wish::Quit => return Ok(ExitCode::SUCCESS),
                    Wish::Ask(question) => watch.ask(question),
                }
            }
        }
        for news in watch.news.try_iter() {
            is_old = true;
            app.take(news);
        }
    }
}
