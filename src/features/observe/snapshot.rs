//! What is going on, as a document for programs: one line of JSON. Fields may be added; what there is keeps
//! its name and meaning as long as [`FORMAT`] is the same. docs/STATS_SOCKET.md tells them.

use super::json::{Json, Value};
use super::queue::QueueNumbers;
use super::text::Text;
use crate::engine::Metered;
use crate::engine::histogram::{BOUNDS, Times};
use crate::error::Error;

pub(crate) const FORMAT: u64 = 1;

/// What is there once.
pub(crate) struct Process<'a> {
    pub(crate) id: u64,
    pub(crate) name: &'a [u8],
    /// Nanoseconds of the monotonic clock: now, and at the library's first use.
    pub(crate) now: u64,
    pub(crate) began: u64,
    /// The fields of `cbr_stats`, and more.
    pub(crate) numbers: &'a [(&'a str, u64)],
}

pub(crate) struct Callback<'a> {
    pub(crate) handle: u64,
    pub(crate) name: &'a str,
    pub(crate) scope: &'a str,
    pub(crate) function: u64,
    pub(crate) references: u64,
    pub(crate) in_flight: u64,
    /// None: not noted.
    pub(crate) age: Option<u64>,
    /// None: not counted.
    pub(crate) metered: Option<Metered>,
}

pub(crate) struct Queue<'a> {
    pub(crate) handle: u64,
    pub(crate) name: &'a str,
    pub(crate) scope: &'a str,
    pub(crate) numbers: QueueNumbers,
}

/// A document that is being written.
pub(crate) struct Document<'a>(Json<'a>);

impl<'a> Document<'a> {
    pub(crate) fn begin(text: &'a mut Text, process: &Process<'_>) -> Result<Self, Error> {
        let mut json = Json::new(text);
        json.begin("", '{')?;
        json.field("callbridge", FORMAT)?;
        json.field("version", env!("CARGO_PKG_VERSION"))?;
        json.field("pid", process.id)?;
        json.field("name", Value::Bytes(process.name))?;
        json.field("time_ns", process.now)?;
        json.field("began_ns", process.began)?;
        json.begin("stats", '{')?;
        for (name, number) in process.numbers {
            json.field(name, *number)?;
        }
        json.end('}')?;
        json.numbers("bounds_ns", BOUNDS.iter().map(|(bound, _)| *bound))?;
        Ok(Self(json))
    }

    /// "queues" or "callbacks".
    pub(crate) fn begin_rows(&mut self, name: &str) -> Result<(), Error> {
        self.0.begin(name, '{')?;
        self.0.begin("rows", '[')
    }

    /// `total`: how many there could be, `shown`: are.
    pub(crate) fn end_rows(&mut self, total: u64, shown: u64) -> Result<(), Error> {
        self.0.end(']')?;
        self.0.field("total", total)?;
        self.0.field("truncated", total.saturating_sub(shown))?;
        self.0.end('}')
    }

    pub(crate) fn queue(&mut self, queue: &Queue<'_>) -> Result<(), Error> {
        let json = &mut self.0;
        json.begin("", '{')?;
        json.field("handle", Value::Hex(queue.handle))?;
        json.field("name", queue.name)?;
        json.field("scope", queue.scope)?;
        let numbers = &queue.numbers;
        json.field("depth", numbers.depth)?;
        json.field("capacity", numbers.capacity)?;
        json.field("posted", numbers.posted)?;
        json.field("dispatched", numbers.dispatched)?;
        json.field("dropped", numbers.dropped)?;
        json.field("refused", numbers.refused)?;
        json.field("blocked", numbers.blocked)?;
        times(json, "wait", &numbers.waited)?;
        json.end('}')
    }

    pub(crate) fn callback(&mut self, callback: &Callback<'_>) -> Result<(), Error> {
        let json = &mut self.0;
        json.begin("", '{')?;
        json.field("handle", Value::Hex(callback.handle))?;
        json.field("name", callback.name)?;
        json.field("scope", callback.scope)?;
        json.field("function", Value::Hex(callback.function))?;
        json.field("references", callback.references)?;
        json.field("in_flight", callback.in_flight)?;
        json.field("age_ns", callback.age)?;
        let metered = callback.metered.as_ref();
        json.field("calls", metered.map(|it| it.calls))?;
        json.field("failures", metered.map(|it| it.failures))?;
        match metered {
            Some(metered) => times(json, "latency", &metered.times)?,
            None => json.field("latency", Value::Nothing)?,
        }
        json.end('}')
    }

    pub(crate) fn end(mut self) -> Result<(), Error> {
        self.0.end('}')?;
        self.0.end('\n')
    }
}

/// How many took as long as each of the bounds says, and longer than the last.
fn times(json: &mut Json<'_>, name: &str, times: &Times) -> Result<(), Error> {
    json.begin(name, '{')?;
    json.field("sum_ns", times.sum)?;
    json.numbers("counts", times.buckets)?;
    json.end('}')
}

/// The answer to what is no request.
pub(crate) fn error(words: &str) -> Result<Text, Error> {
    let mut text = Text::new();
    let mut json = Json::new(&mut text);
    json.begin("", '{')?;
    json.field("callbridge", FORMAT)?;
    json.field("error", words)?;
    json.end('}')?;
    json.end('\n')?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn as_str(text: &Text) -> &str {
        std::str::from_utf8(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_document_is_one_line_and_has_every_field() {
        let mut text = Text::new();
        let numbers = [("live", 2), ("calls", 3)];
        let process = Process { id: 7, name: b"host", now: 20, began: 10, numbers: &numbers };
        let mut document = Document::begin(&mut text, &process).unwrap();
        document.begin_rows("queues").unwrap();
        document
            .queue(&Queue {
                handle: 0x30,
                name: "q\n",
                scope: "",
                numbers: QueueNumbers {
                    depth: 1,
                    capacity: 2,
                    posted: 3,
                    dispatched: 4,
                    dropped: 5,
                    refused: 6,
                    blocked: 7,
                    waited: Times::default(),
                },
            })
            .unwrap();
        document.end_rows(1, 1).unwrap();
        document.begin_rows("callbacks").unwrap();
        let times = Times { sum: 9, ..Times::default() };
        let mut callback = Callback {
            handle: 0x10,
            name: "a",
            scope: "s",
            function: 0xabc,
            references: 1,
            in_flight: 2,
            age: None,
            metered: None,
        };
        document.callback(&callback).unwrap();
        callback.age = Some(3);
        callback.metered = Some(Metered { calls: 8, failures: 1, times });
        document.callback(&callback).unwrap();
        document.end_rows(5, 2).unwrap();
        document.end().unwrap();

        let zeros = "0,".repeat(BOUNDS.len()) + "0";
        let text = as_str(&text);
        assert_eq!(text.matches('\n').count(), 1);
        let begin = format!(
            "{{\"callbridge\":1,\"version\":\"{}\",\"pid\":7,\"name\":\"host\",\"time_ns\":20,\
             \"began_ns\":10,\"stats\":{{\"live\":2,\"calls\":3}},\"bounds_ns\":[100,250,",
            env!("CARGO_PKG_VERSION")
        );
        assert!(text.starts_with(&begin), "{text}");
        let rest = &text[text.find("\"queues\"").unwrap()..];
        assert_eq!(
            rest,
            format!(
                "\"queues\":{{\"rows\":[{{\"handle\":\"0x0000000000000030\",\
                 \"name\":\"q\\u000a\",\"scope\":\"\",\"depth\":1,\"capacity\":2,\"posted\":3,\
                 \"dispatched\":4,\"dropped\":5,\"refused\":6,\"blocked\":7,\"wait\":{{\"sum_ns\":0,\
                 \"counts\":[{zeros}]}}}}],\"total\":1,\"truncated\":0}},\"callbacks\":{{\"rows\":[\
                 {{\"handle\":\"0x0000000000000010\",\"name\":\"a\",\"scope\":\"s\",\
                 \"function\":\"0x0000000000000abc\",\"references\":1,\"in_flight\":2,\"age_ns\":null,\
                 \"calls\":null,\"failures\":null,\"latency\":null}},\
                 {{\"handle\":\"0x0000000000000010\",\"name\":\"a\",\"scope\":\"s\",\
                 \"function\":\"0x0000000000000abc\",\"references\":1,\"in_flight\":2,\"age_ns\":3,\
                 \"calls\":8,\"failures\":1,\"latency\":{{\"sum_ns\":9,\"counts\":[{zeros}]}}}}],\"total\":5,\"truncated\":3}}}}\n"
            )
        );
    }

    #[test]
    fn an_error_is_a_document_too() {
        let text = error("no \"such\" thing").unwrap();
        assert_eq!(as_str(&text), "{\"callbridge\":1,\"error\":\"no \\u0022such\\u0022 thing\"}\n");
    }
}
