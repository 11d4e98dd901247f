#include "tests/bench/machine_limits.h"

#include <immintrin.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>

namespace switchyard::bench {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// Runs body(thread) on all threads at once and returns the wall time of the slowest.
double TimeTogether(int threads, const std::function<void(int)>& body) {
  std::atomic<int> ready{0};
  std::atomic<bool> go{false};
  std::vector<std::thread> workers;
  for (int t = 0; t < threads; ++t) {
    workers.emplace_back([&, t] {
      ready.fetch_add(1);
      while (!go.load(std::memory_order_acquire)) {
      }
      body(t);
    });
  }
  while (ready.load() < threads) {
  }
  const Clock::time_point start = Clock::now();
  go.store(true, std::memory_order_release);
  for (std::thread& worker : workers) worker.join();
  return SecondsSince(start);
}

__attribute__((target("avx2"))) uint64_t ReadAll(const char* begin, int64_t bytes) {
  __m256i sum[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256()};
  for (int64_t i = 0; i + 128 <= bytes; i += 128) {
    for (int j = 0; j < 4; ++j) {
      sum[j] = _mm256_xor_si256(sum[j], _mm256_load_si256(reinterpret_cast<const __m256i*>(begin + i + 32 * j)));
    }
  }
  const __m256i all = _mm256_xor_si256(_mm256_xor_si256(sum[0], sum[1]), _mm256_xor_si256(sum[2], sum[3]));
  return static_cast<uint64_t>(_mm256_extract_epi64(all, 0) ^ _mm256_extract_epi64(all, 2));
}

double MeasureReads(int threads, int64_t bytes, double seconds) {
  constexpr int64_t kHugePage = 2 << 20;
  bytes = bytes / (threads * kHugePage) * (threads * kHugePage);
  void* raw = mmap(nullptr, bytes + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) return 0.0;
  char* memory = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(raw) + kHugePage - 1) / kHugePage * kHugePage);
  madvise(memory, bytes, MADV_HUGEPAGE);
  const int64_t share = bytes / threads;
  TimeTogether(threads, [&](int t) { std::memset(memory + t * share, t + 1, share); });
  std::atomic<uint64_t> sink{0};
  double best = 0.0;
  for (const Clock::time_point start = Clock::now(); SecondsSince(start) < seconds;) {
    const double wall = TimeTogether(threads, [&](int t) { sink ^= ReadAll(memory + t * share, share); });
    best = std::max(best, static_cast<double>(bytes) / wall);
  }
  munmap(raw, bytes + kHugePage);
  return best;
}

struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t bytes_per_row[16] = {};
  uint8_t rows[16] = {};
};

bool EnableAmx() {
  constexpr int kArchReqXcompPerm = 0x1023, kXfeatureTileData = 18;
  return __builtin_cpu_supports("amx-bf16") && syscall(SYS_arch_prctl, kArchReqXcompPerm, kXfeatureTileData) == 0;
}

constexpr int64_t kLoops = 2'000'000;

// 4 accumulator tiles of 16 x 16, 32 products deep.
__attribute__((target("amx-tile,amx-bf16"))) double AmxFlops() {
  TileConfig config;
  for (int t = 0; t < 8; ++t) {
    config.bytes_per_row[t] = 64;
    config.rows[t] = 16;
  }
  // Not _tile_loadconfig: GCC 12 tells the compiler that it reads one pointer's worth, and drops our stores.
  asm volatile("ldtilecfg %0" : : "m"(config));
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  _tile_zero(6);
  _tile_zero(7);
  for (int64_t i = 0; i < kLoops; ++i) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_release();
  return 4.0 * kLoops * 2 * 16 * 16 * 32;
}

__attribute__((target("avx512f,avx512bf16"))) double Avx512Bf16Flops() {
  __m512 sum[16];
  for (__m512& s : sum) s = _mm512_setzero_ps();
  const __m512bh a = (__m512bh)_mm512_set1_epi32(0x3f803f80), b = (__m512bh)_mm512_set1_epi32(0x3f803f80);
  for (int64_t i = 0; i < kLoops; ++i) {
    for (__m512& s : sum) s = _mm512_dpbf16_ps(s, a, b);
    asm volatile("" : "+v"(sum[0]), "+v"(sum[5]), "+v"(sum[10]), "+v"(sum[15]));
  }
  for (int j = 1; j < 16; ++j) sum[0] = _mm512_add_ps(sum[0], sum[j]);
  volatile float sink = _mm512_cvtss_f32(sum[0]);
  (void)sink;
  return 16.0 * kLoops * 2 * 32;
}

__attribute__((target("avx2,fma"))) double FmaFlops() {
  __m256 sum[12];
  for (__m256& s : sum) s = _mm256_setzero_ps();
  const __m256 a = _mm256_set1_ps(1.0f), b = _mm256_set1_ps(0.5f);
  for (int64_t i = 0; i < kLoops; ++i) {
    for (__m256& s : sum) s = _mm256_fmadd_ps(a, b, s);
    asm volatile("" : "+x"(sum[0]), "+x"(sum[5]), "+x"(sum[11]));
  }
  for (int j = 1; j < 12; ++j) sum[0] = _mm256_add_ps(sum[0], sum[j]);
  volatile float sink = _mm256_cvtss_f32(sum[0]);
  (void)sink;
  return 12.0 * kLoops * 2 * 8;
}

double MeasureFlops(int threads, double seconds, double (*body)()) {
  std::vector<double> flops(threads);
  double best = 0.0;
  for (const Clock::time_point start = Clock::now(); SecondsSince(start) < seconds;) {
    const double wall = TimeTogether(threads, [&](int t) { flops[t] = body(); });
    double total = 0.0;
    for (const double f : flops) total += f;
    best = std::max(best, total / wall);
  }
  return best;
}

}  // namespace

MachineLimits MeasureMachineLimits(int threads, int64_t bytes, double seconds) {
  MachineLimits limits;
  limits.threads = threads;
  limits.read_bytes_per_second = MeasureReads(threads, bytes, seconds * 0.7);
  double (*body)() = FmaFlops;
  limits.bf16_unit = "fp32 fma";
  if (EnableAmx()) {
    body = AmxFlops;
    limits.bf16_unit = "amx_bf16";
  } else if (__builtin_cpu_supports("avx512bf16")) {
    body = Avx512Bf16Flops;
    limits.bf16_unit = "avx512_bf16";
  }
  limits.bf16_flops = MeasureFlops(threads, seconds * 0.3, body);
  return limits;
}

std::string Describe(const MachineLimits& limits) {
  char line[160];
  std::snprintf(line, sizeof(line), "%d threads: read %.1f GB/s, bf16 %.0f GFLOP/s (%s)", limits.threads,
                limits.read_bytes_per_second / 1e9, limits.bf16_flops / 1e9, limits.bf16_unit.c_str());
  return line;
}

}  // namespace switchyard::bench
