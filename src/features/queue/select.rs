//! Waiting for the first of several queues.

use super::Inside;
use crate::engine::{ENGINE, Handle, Patience, Record};
use crate::error::Error;
use crate::platform::wake;

/// The index of a queue that has something to dispatch, or is closed. Of several, not always the same.
pub(crate) fn select(
    record: &Record,
    queues: &[Handle],
    patience: Patience,
) -> Result<usize, Error> {
    let mut insides = Vec::new();
    let mut polled = Vec::new();
    insides.try_reserve_exact(queues.len()).map_err(|_| Error::NoMemory)?;
    polled.try_reserve_exact(queues.len()).map_err(|_| Error::NoMemory)?;
    for (index, handle) in queues.iter().enumerate() {
        let inside = match Inside::enter(&ENGINE, record, *handle, *handle) {
            Ok(inside) => inside,
            // It was closed, and is gone.
            Err(Error::Closed | Error::Stale) => return Ok(index),
            Err(error) => return Err(error),
        };
        let queue = inside.queue();
        if queue.is_inherited(&ENGINE) {
            return Ok(index);
        }
        if queue.owned && !ENGINE.owns_queue(record, inside.slot) {
            return Err(ENGINE.not_the_owner(inside.slot));
        }
        polled.push(queue.signal.wake().to_poll());
        insides.push(inside);
    }
    let first = record.next_turn() as usize;
    let ready = |insides: &[Inside<'_>], before_sleep: bool| {
        let mut order = (0..insides.len()).map(|place| (first + place) % insides.len());
        order.find(|index| {
            let queue = insides[*index].queue();
            queue.is_closing()
                || match before_sleep {
                    true => queue.has_work_before_sleep(&ENGINE),
                    false => queue.has_work(),
                }
        })
    };
    loop {
        if let Some(index) = ready(&insides, false) {
            return Ok(index);
        }
        if patience.is_over() {
            return Err(if patience == Patience::None { Error::Empty } else { Error::Timeout });
        }
        insides.iter().for_each(|inside| inside.queue().signal.watch());
        if ready(&insides, true).is_none() {
            wake::sleep(&mut polled, patience.next_look(false));
        }
        for inside in &insides {
            let queue = inside.queue();
            queue.signal.unwatch();
            // Left by a dispatch that found nothing of what it was raised for.
            if !queue.has_work() {
                queue.signal.lower(|| queue.has_work_before_sleep(&ENGINE));
            }
        }
    }
}
