//! A program's logger that panics: the library logs in the middle of what it does, and on behalf of C.

#![forbid(unsafe_code)]

use callbridge::Callback;

struct Panics;

impl log::Log for Panics {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }
    fn log(&self, _: &log::Record<'_>) {
        panic!("the disk is full");
    }
    fn flush(&self) {}
}

#[test]
fn a_logger_that_panics_does_not_unwind_through_a_thunk() {
    let callback = Callback::<fn(i32) -> i32>::builder().fallback(-1).register(|a: i32| a).unwrap();
    let thunk = callback.thunk().unwrap();
    drop(callback);
    log::set_logger(&Panics).unwrap();
    log::set_max_level(log::LevelFilter::Warn);
    assert_eq!(thunk.call((1,)), -1, "logged, and the fallback");
}
