//! Compiles the check of the processor, without the flags that Rust is compiled with.

#[expect(clippy::disallowed_methods, reason = "how cargo talks to a build script")]
fn main() {
    println!("cargo::rerun-if-changed=src/cpu.c");
    if std::env::var("CARGO_CFG_TARGET_ARCH").as_deref() == Ok("x86_64")
        && std::env::var("CARGO_CFG_TARGET_ENV").as_deref() != Ok("msvc")
    {
        // Whole: nothing calls it.
        cc::Build::new().file("src/cpu.c").link_lib_modifier("+whole-archive").compile("windrow_cpu");
    }
}
