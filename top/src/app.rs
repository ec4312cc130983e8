//! What the screen is about: the last view, how it is sorted and filtered, what the user is doing.

use crate::args::{Args, FILTER};
use crate::client::Question;
use crate::document::Document;
use crate::places::Places;
use crate::view::{Sort, View};
use crate::watch::News;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use std::time::Duration;

pub(crate) struct App {
    rows: usize,
    pub(crate) sort: Sort,
    pub(crate) filter: String,
    /// What is being typed.
    pub(crate) typed: Option<String>,
    pub(crate) view: Option<View>,
    /// What is wrong.
    pub(crate) lost: Option<String>,
    /// The first callback that is shown.
    pub(crate) first: usize,
    /// How many there is room for, since the last drawing.
    pub(crate) page: usize,
    /// What rates are measured from.
    base: Option<Document>,
    interval: Duration,
    places: Places,
    pid: Option<u32>,
}

/// What a key asks for.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Wish {
    Nothing,
    Quit,
    /// Another question.
    Ask(Question),
}

impl App {
    pub(crate) fn new(args: &Args) -> Self {
        Self {
            rows: args.rows,
            sort: args.sort,
            filter: args.filter.clone(),
            typed: None,
            view: None,
            lost: None,
            first: 0,
            page: 1,
            base: None,
            interval: args.interval,
            places: Places::default(),
            pid: None,
        }
    }

    pub(crate) fn question(&self) -> Question {
        Question { rows: self.rows, order: self.sort.order(), part: self.filter.clone() }
    }

    pub(crate) fn take(&mut self, news: News) {
        match news {
            News::Document(pid, document) => {
                if self.pid != pid {
                    self.places = Places::new(pid);
                    self.pid = pid;
                }
                let mut view = View::new(&document, self.base.as_ref(), &mut self.places);
                view.sort(self.sort);
                self.view = Some(view);
                // An answer to a key comes early: a rate of so short a time would say little.
                let is_early = self.base.as_ref().is_some_and(|base| {
                    let passed = document.time_ns.saturating_sub(base.time_ns);
                    base.pid == document.pid && Duration::from_nanos(passed) < self.interval / 2
                });
                if !is_early {
                    self.base = Some(*document);
                }
                self.lost = None;
            }
            // The last view stays.
            News::Lost(words) => self.lost = Some(words),
        }
    }

    pub(crate) fn press(&mut self, key: KeyEvent) -> Wish {
        if key.kind == KeyEventKind::Release {
            return Wish::Nothing;
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        if control && matches!(key.code, KeyCode::Char('c')) {
            return Wish::Quit;
        }
        if self.typed.is_some() {
            return self.type_filter(key.code);
        }
        match key.code {
            KeyCode::Char('q') => return Wish::Quit,
            KeyCode::Esc if self.filter.is_empty() => return Wish::Quit,
            KeyCode::Esc => return self.filter_by(String::new()),
            KeyCode::Char('s') => return self.sort_by(self.sort.next()),
            KeyCode::Char('S') => return self.sort_by(self.sort.previous()),
            KeyCode::Char('/') => self.typed = Some(self.filter.clone()),
            KeyCode::Down => self.first += 1,
            KeyCode::Up => self.first = self.first.saturating_sub(1),
            KeyCode::PageDown => self.first += self.page,
            KeyCode::PageUp => self.first = self.first.saturating_sub(self.page),
            KeyCode::Home => self.first = 0,
            KeyCode::End => self.first = usize::MAX / 2,
            _ => {}
        }
        Wish::Nothing
    }

    fn type_filter(&mut self, key: KeyCode) -> Wish {
        let Some(typed) = &mut self.typed else { return Wish::Nothing };
        match key {
            KeyCode::Enter => {
                let filter = self.typed.take().unwrap_or_default();
                return self.filter_by(filter);
            }
            KeyCode::Esc => {
                self.typed = None;
                return self.filter_by(String::new());
            }
            KeyCode::Backspace => {
                typed.pop();
            }
            KeyCode::Char(letter)
                if !letter.is_control() && typed.len() + letter.len_utf8() <= FILTER =>
            {
                typed.push(letter);
            }
            _ => {}
        }
        Wish::Nothing
    }

    fn filter_by(&mut self, filter: String) -> Wish {
        self.first = 0;
        self.filter = filter;
        Wish::Ask(self.question())
    }

    fn sort_by(&mut self, sort: Sort) -> Wish {
        let before = self.sort.order();
        self.first = 0;
        self.sort = sort;
        if let Some(view) = &mut self.view {
            view.sort(sort);
        }
        // What there is needs no other answer, unless it is not all.
        match sort.order() == before {
            true => Wish::Nothing,
            false => Wish::Ask(self.question()),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::args::{Command, parse};
    use crate::view::tests::two_documents;

    pub(crate) fn app() -> App {
        let Ok(Command::Watch(args)) = parse(["7".into()]) else { panic!() };
        let mut app = App::new(&args);
        for document in two_documents() {
            app.take(News::Document(None, Box::new(document)));
        }
        app
    }

    fn press(app: &mut App, keys: &str) -> Wish {
        let mut wish = Wish::Nothing;
        for letter in keys.chars() {
            wish = app.press(KeyEvent::from(match letter {
                '\n' => KeyCode::Enter,
                '\x1b' => KeyCode::Esc,
                '\x08' => KeyCode::Backspace,
                letter => KeyCode::Char(letter),
            }));
        }
        wish
    }

    #[test]
    fn a_filter_is_typed_and_asked_for() {
        let mut app = app();
        assert_eq!(press(&mut app, "/qsx\x08"), Wish::Nothing);
        assert_eq!(app.typed.as_deref(), Some("qs"));
        let Wish::Ask(question) = press(&mut app, "\n") else { panic!() };
        assert_eq!((question.part.as_str(), app.filter.as_str(), &app.typed), ("qs", "qs", &None));
        // Esc takes it away first, and then ends.
        let Wish::Ask(question) = press(&mut app, "\x1b") else { panic!() };
        assert_eq!(question.part, "");
        assert_eq!(press(&mut app, "\x1b"), Wish::Quit);
        let Wish::Ask(question) = press(&mut app, "/a\x1b") else { panic!() };
        assert_eq!((question.part.as_str(), &app.typed), ("", &None));
    }

    #[test]
    fn a_filter_has_an_end() {
        let mut app = app();
        press(&mut app, "/");
        press(&mut app, &"é".repeat(200));
        assert_eq!(app.typed.map(|it| it.len()), Some(254));
    }

    #[test]
    fn sorting_asks_anew_only_where_others_may_be_first() {
        let mut app = app();
        assert_eq!(press(&mut app, "s"), Wish::Nothing);
        assert_eq!(app.sort, Sort::P99);
        let Wish::Ask(question) = press(&mut app, "s") else { panic!() };
        assert_eq!((app.sort, question.order), (Sort::Inside, "inside"));
        assert!(matches!(press(&mut app, "S"), Wish::Ask(_)));
        assert_eq!(press(&mut app, "S"), Wish::Nothing);
        assert_eq!(press(&mut app, "S"), Wish::Nothing);
        assert_eq!(app.sort, Sort::Name);
        assert_eq!(app.view.unwrap().callbacks.rows[0].name, "new");
    }

    #[test]
    fn the_last_view_stays_when_the_process_is_gone() {
        let mut app = app();
        app.take(News::Lost("gone".to_owned()));
        assert_eq!(app.lost.as_deref(), Some("gone"));
        assert_eq!(app.view.as_ref().unwrap().callbacks.rows.len(), 3);
        let [_, document] = two_documents();
        app.take(News::Document(None, Box::new(document)));
        assert_eq!(app.lost, None);
    }

    #[test]
    fn an_early_answer_is_no_base_for_rates() {
        let mut app = app();
        let [_, mut document] = two_documents();
        // 0.1 s after the last, 2.1 s after the one before.
        document.time_ns += 100_000_000;
        document.stats.insert("calls".to_owned(), 400);
        app.take(News::Document(None, Box::new(document.clone())));
        assert_eq!(app.view.as_ref().unwrap().stat_per_second("calls"), Some(1000.0));
        document.time_ns += 1_900_000_000;
        document.stats.insert("calls".to_owned(), 500);
        app.take(News::Document(None, Box::new(document)));
        // Not of the 1.9 s since.
        assert_eq!(app.view.as_ref().unwrap().stat_per_second("calls"), Some(100.0));
    }

    #[test]
    fn q_and_control_c_end() {
        let mut app = app();
        assert_eq!(press(&mut app, "q"), Wish::Quit);
        assert_eq!(press(&mut app, "/q"), Wish::Nothing);
        let key = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(app.press(key), Wish::Quit);
    }
}
