//! What stands in two places must be the same.

const HEADER: &str = include_str!("../../include/callbridge.h");

#[test]
fn the_headers_version_is_the_packages() {
    for (part, value) in [
        ("MAJOR", env!("CARGO_PKG_VERSION_MAJOR").to_owned()),
        ("MINOR", env!("CARGO_PKG_VERSION_MINOR").to_owned()),
        ("PATCH", env!("CARGO_PKG_VERSION_PATCH").to_owned()),
        ("STRING", format!("{:?}", env!("CARGO_PKG_VERSION"))),
    ] {
        let line = format!("#define CALLBRIDGE_VERSION_{part} {value}\n");
        assert!(HEADER.contains(&line), "{line}");
    }
}
