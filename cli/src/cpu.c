// Runs before anything that Rust compiled for a newer processor, and is itself compiled for the oldest. See cpu.rs.

#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

// What the program was compiled to use: a bit for each of the names below, in their order.
extern const uint32_t windrow_cpu_needs;

static void say(const char *text) {
    size_t length = 0;
    while (text[length]) length++;
    if (write(2, text, length) < 0) _exit(1);
}

__attribute__((constructor(101))) void windrow_check_cpu(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    const struct { const char *name; int there; } features[] = {
        {"sse4.2", __builtin_cpu_supports("sse4.2")}, {"popcnt", __builtin_cpu_supports("popcnt")},
        {"avx", __builtin_cpu_supports("avx")},       {"avx2", __builtin_cpu_supports("avx2")},
        {"fma", __builtin_cpu_supports("fma")},       {"bmi1", __builtin_cpu_supports("bmi")},
        {"bmi2", __builtin_cpu_supports("bmi2")},     {"avx512f", __builtin_cpu_supports("avx512f")},
        {"avx512bw", __builtin_cpu_supports("avx512bw")}, {"avx512vl", __builtin_cpu_supports("avx512vl")},
    };
    int missing = 0;
    for (unsigned i = 0; i < sizeof features / sizeof features[0]; i++) {
        if (!(windrow_cpu_needs >> i & 1) || features[i].there) continue;
        say(missing++ ? ", " : "windrow was built for a newer processor; this one has no ");
        say(features[i].name);
    }
    if (missing) {
        say("\nbuild it for this one: RUSTFLAGS='-C target-cpu=native' cargo build --release --workspace --bin windrow\n");
        _exit(1);
    }
#endif
}
