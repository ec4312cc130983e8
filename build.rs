//! Link flags of the shared library.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let os = std::env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    if os != "linux" {
        return;
    }
    let major = env!("CARGO_PKG_VERSION_MAJOR");
    for arg in [
        // The name that programs record; changes with the major version only.
        format!("-Wl,-soname,libcallbridge.so.{major}"),
        // Thread-exit hooks hold pointers into this code: dlclose must not unmap it.
        "-Wl,-z,nodelete".into(),
        "-Wl,-z,relro,-z,now,-z,noexecstack,-z,text".into(),
        // What the library calls of its own exports is its own, even where another copy of it was
        // loaded first.
        "-Wl,-Bsymbolic-functions".into(),
        // GNU ld, because lld drops the version node that default-symver asks for.
        "-fuse-ld=bfd".into(),
        // Every exported symbol gets the version node libcallbridge.so.MAJOR.
        "-Wl,--default-symver".into(),
    ] {
        println!("cargo:rustc-cdylib-link-arg={arg}");
    }
}
