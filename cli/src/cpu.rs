//! Whether this processor has what the program was compiled for. Built for another one (`-C target-cpu=x86-64-v3`), its first vector
//! instruction would end the process without a word.

/// What the program was compiled to use and this processor lacks; the message for its user, if anything.
#[must_use]
pub fn refuse() -> Option<String> {
    let missing = missing();
    if missing.is_empty() {
        return None;
    }
    Some(format!(
        "windrow was built for a newer processor: this one has no {}\n\
         build it for this one: RUSTFLAGS='-C target-cpu=native' cargo build --release --workspace --bin windrow",
        missing.join(", ")
    ))
}

/// Asks the processor itself: the standard library's detection answers for what was compiled in without looking.
#[cfg(target_arch = "x86_64")]
fn missing() -> Vec<&'static str> {
    let cpu = raw_cpuid::CpuId::new();
    let (basic, extended, processor) =
        (cpu.get_feature_info(), cpu.get_extended_feature_info(), cpu.get_extended_processor_and_feature_identifiers());
    let basic = |has: fn(&raw_cpuid::FeatureInfo) -> bool| basic.as_ref().is_some_and(has);
    let extended = |has: fn(&raw_cpuid::ExtendedFeatures) -> bool| extended.as_ref().is_some_and(has);
    let lzcnt = processor.as_ref().is_some_and(raw_cpuid::ExtendedProcessorFeatureIdentifiers::has_lzcnt);
    let features = [
        ("sse3", cfg!(target_feature = "sse3"), basic(|cpu| cpu.has_sse3())),
        ("ssse3", cfg!(target_feature = "ssse3"), basic(|cpu| cpu.has_ssse3())),
        ("sse4.1", cfg!(target_feature = "sse4.1"), basic(|cpu| cpu.has_sse41())),
        ("sse4.2", cfg!(target_feature = "sse4.2"), basic(|cpu| cpu.has_sse42())),
        ("popcnt", cfg!(target_feature = "popcnt"), basic(|cpu| cpu.has_popcnt())),
        ("avx", cfg!(target_feature = "avx"), basic(|cpu| cpu.has_avx() && cpu.has_oxsave())),
        ("f16c", cfg!(target_feature = "f16c"), basic(|cpu| cpu.has_f16c())),
        ("fma", cfg!(target_feature = "fma"), basic(|cpu| cpu.has_fma())),
        ("movbe", cfg!(target_feature = "movbe"), basic(|cpu| cpu.has_movbe())),
        ("avx2", cfg!(target_feature = "avx2"), extended(|cpu| cpu.has_avx2())),
        ("bmi1", cfg!(target_feature = "bmi1"), extended(|cpu| cpu.has_bmi1())),
        ("bmi2", cfg!(target_feature = "bmi2"), extended(|cpu| cpu.has_bmi2())),
        ("lzcnt", cfg!(target_feature = "lzcnt"), lzcnt),
        ("avx512f", cfg!(target_feature = "avx512f"), extended(|cpu| cpu.has_avx512f())),
        ("avx512bw", cfg!(target_feature = "avx512bw"), extended(|cpu| cpu.has_avx512bw())),
        ("avx512vl", cfg!(target_feature = "avx512vl"), extended(|cpu| cpu.has_avx512vl())),
    ];
    features.into_iter().filter(|(_, used, there)| *used && !there).map(|(name, _, _)| name).collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn missing() -> Vec<&'static str> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_runs_this_test_can_run_the_program() {
        assert_eq!(super::refuse(), None);
    }
}
