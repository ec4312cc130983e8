//! Looks again and again, on a thread of its own: whatever the process does, keys are heard.

use crate::client::{Client, NoAnswer, Question};
use crate::document::Document;
use crate::target::Target;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

/// What has come of a look.
pub(crate) enum News {
    /// Whose it is, and what it says.
    Document(Option<u32>, Box<Document>),
    /// Words for people.
    Lost(String),
}

/// Somebody who looks.
pub(crate) struct Watch {
    pub(crate) news: Receiver<News>,
    questions: Sender<Question>,
}

impl Watch {
    /// The first answer is there, or there is nothing to watch.
    pub(crate) fn new(target: Target, question: Question, interval: Duration) -> Self {
        let (tell, news) = mpsc::channel();
        let (questions, asked) = mpsc::channel();
        std::thread::spawn(move || look(&target, question, interval, &asked, &tell));
        Self { news, questions }
    }

    /// From now on, and at once.
    pub(crate) fn ask(&self, question: Question) {
        // It ends only with us.
        let _ = self.questions.send(question);
    }
}

fn look(
    target: &Target,
    mut question: Question,
    interval: Duration,
    asked: &Receiver<Question>,
    tell: &Sender<News>,
) {
    let mut client = None;
    let mut next = Instant::now();
    loop {
        let news = match answer(&mut client, target, &question) {
            Ok((pid, document)) => News::Document(pid, Box::new(document)),
            Err(words) => News::Lost(words),
        };
        if tell.send(news).is_err() {
            return;
        }
        // In step, unless the process is slower than that.
        next = (next + interval).max(Instant::now());
        match asked.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Ok(other) => {
                question = asked.try_iter().last().unwrap_or(other);
                next = Instant::now();
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// By the connection that there is, or, if that is gone, another one: the library drops who is silent for
/// long, and another process may serve the path by now.
fn answer(
    client: &mut Option<Client>,
    target: &Target,
    question: &Question,
) -> Result<(Option<u32>, Document), String> {
    if let Some(mut known) = client.take() {
        match known.ask(question) {
            Ok(document) => {
                let pid = known.pid;
                *client = Some(known);
                return Ok((pid, document));
            }
            Err(NoAnswer::Closed) => {}
            Err(other) => return Err(other.words()),
        }
    }
    let mut fresh = Client::connect(target)?;
    let document = fresh.ask(question).map_err(NoAnswer::words)?;
    let pid = fresh.pid;
    *client = Some(fresh);
    Ok((pid, document))
}
