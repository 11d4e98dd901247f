// What this machine can do at most, measured now: the denominators of every benchmark's "share of the limit".
//
// Limits are measured in the same run as the figures they judge, because these machines have neighbours.
#ifndef SWITCHYARD_TESTS_BENCH_MACHINE_LIMITS_H_
#define SWITCHYARD_TESTS_BENCH_MACHINE_LIMITS_H_

#include <cstdint>
#include <string>

namespace switchyard::bench {

struct MachineLimits {
  int threads = 0;
  double read_bytes_per_second = 0.0;  // all threads together, memory in huge pages, far larger than the caches
  double bf16_flops = 0.0;             // all threads together, multiply and add counted apart, operands in registers
  std::string bf16_unit;               // what does them: "amx_bf16", "avx512_bf16" or "fp32 fma"
};

// Takes about `seconds` and `bytes` of memory. The best of several passes: a limit is what is possible.
MachineLimits MeasureMachineLimits(int threads, int64_t bytes = int64_t{2} << 30, double seconds = 3.0);

// One line of text: "2 threads: read 45.1 GB/s, bf16 3.9 TFLOP/s (amx_bf16)".
std::string Describe(const MachineLimits& limits);

}  // namespace switchyard::bench

#endif  // SWITCHYARD_TESTS_BENCH_MACHINE_LIMITS_H_
