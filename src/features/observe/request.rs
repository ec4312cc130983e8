//! What is asked over the socket: a line of words, `snapshot limit=100 order=rate match=render`.

/// The longest line, its end not counted.
pub(crate) const LONGEST: usize = 500;
/// Rows of callbacks, and as many of queues, if nobody says.
const ROWS: usize = 100;
/// More than this nobody gets: an answer is made in memory.
pub(crate) const MOST_ROWS: usize = 10_000;

/// Which callbacks are in the answer if there are too many: the first in this order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Order {
    /// Calls since the last snapshot in this order on this connection.
    Rate,
    Calls,
    Failures,
    /// Calls inside.
    Inside,
}

#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) limit: usize,
    pub(crate) order: Order,
    /// Only callbacks with this in their name or handle, in capital or small letters.
    pub(crate) part: &'a str,
}

impl<'a> Request<'a> {
    /// Fails with words for whoever asks.
    pub(crate) fn parse(line: &'a [u8]) -> Result<Self, &'static str> {
        let line = std::str::from_utf8(line).map_err(|_| "the request is not UTF-8")?;
        let line = line.strip_suffix('\r').unwrap_or(line);
        let mut request = Request { limit: ROWS, order: Order::Rate, part: "" };
        let mut rest = line
            .strip_prefix("snapshot")
            .filter(|rest| rest.is_empty() || rest.starts_with(' '))
            .ok_or("unknown request: there is only \"snapshot\"")?;
        loop {
            rest = rest.trim_start_matches(' ');
            // All that follows, spaces among it.
            if let Some(part) = rest.strip_prefix("match=") {
                request.part = part;
                return Ok(request);
            }
            let (word, behind) = rest.split_once(' ').unwrap_or((rest, ""));
            match word.split_once('=') {
                None if word.is_empty() => return Ok(request),
                Some(("limit", number)) => {
                    let number = number.parse::<usize>().map_err(|_| "limit is no number")?;
                    request.limit = number.min(MOST_ROWS);
                }
                Some(("order", order)) => {
                    request.order = match order {
                        "rate" => Order::Rate,
                        "calls" => Order::Calls,
                        "failures" => Order::Failures,
                        "inside" => Order::Inside,
                        _ => return Err("unknown order: rate, calls, failures, inside"),
                    };
                }
                _ => return Err("unknown option: limit, order, match"),
            }
            rest = behind;
        }
    }

    /// Does it ask for what is called so?
    pub(crate) fn is_for(&self, name: &str) -> bool {
        let part = self.part.as_bytes();
        part.is_empty()
            || name.as_bytes().windows(part.len()).any(|it| it.eq_ignore_ascii_case(part))
    }

    /// Does it ask for this handle, as it is written?
    pub(crate) fn is_for_handle(&self, handle: u64) -> bool {
        let mut digits = *b"0x0000000000000000";
        for (place, digit) in digits[2..].iter_mut().enumerate() {
            *digit = b"0123456789abcdef"[(handle >> (60 - 4 * place)) as usize % 16];
        }
        std::str::from_utf8(&digits).is_ok_and(|digits| self.is_for(digits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Request<'_>, &'static str> {
        Request::parse(line.as_bytes())
    }

    #[test]
    fn what_is_not_said_is_the_default() {
        let default = Request { limit: ROWS, order: Order::Rate, part: "" };
        assert_eq!(parse("snapshot"), Ok(default));
        assert_eq!(parse("snapshot  \r"), parse("snapshot"));
        let all = parse("snapshot limit=7  order=inside match=a limit=8").unwrap();
        assert_eq!(all, Request { limit: 7, order: Order::Inside, part: "a limit=8" });
        assert_eq!(parse("snapshot match=").unwrap().part, "");
        assert_eq!(parse("snapshot limit=99999999").unwrap().limit, MOST_ROWS);
    }

    #[test]
    fn what_is_not_understood_is_refused_with_words() {
        for line in
            ["", "\r", "snap", "snapshots", "GET / HTTP/1.1", "snapshot limit", "snapshot x=1"]
        {
            assert!(parse(line).unwrap_err().starts_with("unknown"), "{line}");
        }
        for number in ["", "-1", "1x", "99999999999999999999999"] {
            assert!(parse(&format!("snapshot limit={number}")).is_err(), "{number}");
        }
        assert!(parse("snapshot order=name").is_err());
        assert!(Request::parse(b"snapshot match=\xff").is_err());
    }

    #[test]
    fn a_part_is_found_in_small_and_in_capital_letters() {
        let request = parse("snapshot match=Der").unwrap();
        assert!(request.is_for("render") && request.is_for("DER") && !request.is_for("de"));
        assert!(parse("snapshot").unwrap().is_for(""));
        assert!(parse("snapshot match=ß").unwrap().is_for("Gruß"));
        let request = parse("snapshot match=0x12AB0").unwrap();
        assert!(request.is_for_handle(0x12ab_0000_0000_0000) && !request.is_for_handle(0x12ab0));
    }
}
