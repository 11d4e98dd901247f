// What one and all threads can do at most, per instruction set: the denominators of the kernel bench.
#ifndef SWITCHYARD_TESTS_BENCH_KERNEL_LIMITS_H_
#define SWITCHYARD_TESTS_BENCH_KERNEL_LIMITS_H_

#include <cstdint>

#include "engine/backend/cpu/isa.h"
#include "engine/base/dtype.h"

namespace switchyard::bench {

// Reads per second over `bytes` of huge pages: the faster of plain reads and reads with software prefetch, which on
// some machines keeps more misses in flight.
double MeasureReadBandwidth(int threads, const char* memory, int64_t bytes);

// Multiply-add FLOP per second with all operands in registers: fp32, or what the instruction set has for bfloat16
// operands with fp32 sums.
double MeasurePeakFlops(int threads, cpu::Isa isa, DType dtype);

}  // namespace switchyard::bench

#endif  // SWITCHYARD_TESTS_BENCH_KERNEL_LIMITS_H_
