//! What callbacks cost a Rust program, beside its own means. Prints `subject<TAB>nanoseconds<TAB>repetition`.

use callbridge::{Callback, Thunk};
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

type Number = fn(u64) -> u64;

/// As long as a part of a slice is at least.
const PART: Duration = Duration::from_micros(500);

/// Nanoseconds of one step: the median of the slice's parts, because some are interrupted.
fn time(slice: Duration, step: &mut dyn FnMut()) -> f64 {
    let mut part = |steps: u32| {
        let began = Instant::now();
        for _ in 0..steps {
            step();
        }
        began.elapsed()
    };
    let mut steps = 100;
    while part(steps) < PART {
        steps *= 2;
    }
    let began = Instant::now();
    let mut parts = Vec::new();
    while began.elapsed() < slice {
        parts.push(part(steps));
    }
    parts.sort_unstable();
    parts[parts.len() / 2].as_nanos() as f64 / f64::from(steps)
}

fn main() {
    let quick = std::env::args().any(|it| it == "--quick");
    let slice = Duration::from_millis(if quick { 50 } else { 100 });
    let add = black_box(1);
    let closure = move |number: u64| number + add;

    let boxed: Box<dyn Fn(u64) -> u64 + Send + Sync> = Box::new(closure);
    let shared: Arc<dyn Fn(u64) -> u64 + Send + Sync> = Arc::new(closure);
    let callback = Callback::new(closure).expect("there is memory");
    let handle = callback.handle();
    let thunk: Thunk<Number> = callback.thunk().expect("there is memory");
    for repetition in 0..5 {
        let say = |subject: &str, step: &mut dyn FnMut()| {
            println!("rust {subject}\t{:.2}\t{repetition}", time(slice, step));
        };
        say("Box<dyn Fn>", &mut || assert_eq!(black_box(&boxed)(black_box(7)), 8));
        say("Arc<dyn Fn>-clone-and-call", &mut || {
            assert_eq!(black_box(&shared).clone()(black_box(7)), 8);
        });
        say("Callback::call", &mut || {
            assert_eq!(black_box(&callback).call((black_box(7),)), Ok(8))
        });
        say("Handle::call", &mut || {
            assert_eq!(black_box(handle).call::<Number>((black_box(7),)), Ok(8));
        });
        say("Thunk", &mut || assert_eq!(black_box(&thunk).call((black_box(7),)), 8));
        say("Arc-new-drop", &mut || {
            black_box(Arc::new(closure));
        });
        say("register-drop", &mut || {
            black_box(Callback::new(closure).expect("there is memory"));
        });
    }
}
