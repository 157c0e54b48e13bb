//! Whether this processor has what the program was compiled for. Built for a newer one (`-C target-cpu=x86-64-v3`), the first vector
//! instruction would end the process without a word, and the compiler puts one nearly everywhere: no Rust of this build can look first.
//! So C looks (`cpu.c`), which is compiled for the oldest processor, and before `main`.

/// What the program was compiled to use: a bit for each name of `cpu.c`, in its order.
#[expect(unsafe_code, reason = "C reads it by its name")]
// SAFETY: nothing else has this name, and it is never written.
#[unsafe(no_mangle)]
#[used]
pub(crate) static windrow_cpu_needs: u32 = needs();

const fn needs() -> u32 {
    let features = [
        cfg!(target_feature = "sse4.2"),
        cfg!(target_feature = "popcnt"),
        cfg!(target_feature = "avx"),
        cfg!(target_feature = "avx2"),
        cfg!(target_feature = "fma"),
        cfg!(target_feature = "bmi1"),
        cfg!(target_feature = "bmi2"),
        cfg!(target_feature = "avx512f"),
        cfg!(target_feature = "avx512bw"),
        cfg!(target_feature = "avx512vl"),
    ];
    let (mut bits, mut index) = (0, 0);
    while index < features.len() {
        bits |= (features[index] as u32) << index;
        index += 1;
    }
    bits
}
