#include "tests/bench/kernel_limits.h"

#include <immintrin.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

namespace switchyard::bench {
namespace {

using Clock = std::chrono::steady_clock;

// Runs body(thread) on all threads at once: wall seconds from the common start to the last end.
template <typename Body>
double TimeTogether(int threads, const Body& body) {
  std::atomic<int> ready{0};
  Clock::time_point start;
  const auto run = [&](int thread) {
    ready.fetch_add(1);
    while (ready.load() < threads) {
    }
    if (thread == 0) start = Clock::now();
    body(thread);
  };
  std::vector<std::thread> others;
  for (int t = 1; t < threads; ++t) others.emplace_back(run, t);
  run(0);
  for (std::thread& other : others) other.join();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

template <int kAheadBytes>
__attribute__((target("avx2"))) uint64_t ReadAll(const char* memory, int64_t bytes) {
  __m256i sum[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256()};
  for (int64_t i = 0; i + 256 <= bytes; i += 256) {
    for (int line = 0; line < 4; ++line) {
      if (kAheadBytes > 0) _mm_prefetch(memory + i + line * 64 + kAheadBytes, _MM_HINT_T0);
      const auto* p = reinterpret_cast<const __m256i*>(memory + i + line * 64);
      sum[line] = _mm256_xor_si256(sum[line], _mm256_xor_si256(_mm256_load_si256(p), _mm256_load_si256(p + 1)));
    }
  }
  const __m256i all = _mm256_xor_si256(_mm256_xor_si256(sum[0], sum[1]), _mm256_xor_si256(sum[2], sum[3]));
  return static_cast<uint64_t>(_mm256_extract_epi64(all, 0) ^ _mm256_extract_epi64(all, 3));
}

constexpr int64_t kLoops = 2'000'000;

double ScalarFlops() {
  float sum[16] = {};
  for (int64_t i = 0; i < kLoops; ++i) {
    for (float& s : sum) s = s * 0.5f + 1.0f;
    __asm__ volatile("" : : "r"(sum) : "memory");
  }
  return 16.0 * 2 * kLoops;
}

__attribute__((target("avx2,fma"))) double Avx2Flops() {
  __m256 sum[12];
  for (__m256& s : sum) s = _mm256_setzero_ps();
  const __m256 a = _mm256_set1_ps(0.5f);
  for (int64_t i = 0; i < kLoops; ++i) {
    for (__m256& s : sum) {
      s = _mm256_fmadd_ps(s, a, a);
      __asm__ volatile("" : "+x"(s));
    }
  }
  return 12.0 * 8 * 2 * kLoops;
}

__attribute__((target("avx512f"))) double Avx512Flops() {
  __m512 sum[16];
  for (__m512& s : sum) s = _mm512_setzero_ps();
  const __m512 a = _mm512_set1_ps(0.5f);
  for (int64_t i = 0; i < kLoops; ++i) {
    for (__m512& s : sum) {
      s = _mm512_fmadd_ps(s, a, a);
      __asm__ volatile("" : "+v"(s));
    }
  }
  return 16.0 * 16 * 2 * kLoops;
}

__attribute__((target("avx512f,avx512bf16"))) double Avx512Bf16Flops() {
  __m512 sum[16];
  for (__m512& s : sum) s = _mm512_setzero_ps();
  const __m512bh a = (__m512bh)_mm512_set1_epi32(0x3f803f80);
  for (int64_t i = 0; i < kLoops; ++i) {
    for (__m512& s : sum) {
      s = _mm512_dpbf16_ps(s, a, a);
      __asm__ volatile("" : "+v"(s));
    }
  }
  return 16.0 * 32 * 2 * kLoops;
}

// REQUIRES: AvailableIsas() was called, which asks the system for the tiles.
__attribute__((target("amx-tile,amx-bf16"))) double AmxFlops() {
  struct alignas(64) {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  } config;
  __asm__ volatile("ldtilecfg %0" : : "m"(config));
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
  return 4.0 * 16 * 16 * 32 * 2 * kLoops;
}

double (*FlopsLoop(cpu::Isa isa, DType dtype))() {
  using cpu::Isa;
  if (dtype == DType::kBF16 && isa == Isa::kAmx) return AmxFlops;
  if (dtype == DType::kBF16 && isa == Isa::kAvx512Bf16) return Avx512Bf16Flops;
  if (isa >= Isa::kAvx512) return Avx512Flops;
  return isa == Isa::kAvx2 ? Avx2Flops : ScalarFlops;
}

}  // namespace

double MeasureReadBandwidth(int threads, const char* memory, int64_t bytes) {
  const int64_t share = bytes / threads / 4096 * 4096;
  std::atomic<uint64_t> sink{0};
  double best = 0.0;
  for (int round = 0; round < 3; ++round) {
    const auto read = [&](uint64_t (*loop)(const char*, int64_t)) {
      const double seconds = TimeTogether(threads, [&](int t) { sink ^= loop(memory + t * share, share); });
      best = std::max(best, static_cast<double>(share * threads) / seconds);
    };
    read(ReadAll<0>);
    read(ReadAll<768>);
  }
  return best;
}

double MeasurePeakFlops(int threads, cpu::Isa isa, DType dtype) {
  double (*const loop)() = FlopsLoop(isa, dtype);
  double best = 0.0;
  for (int round = 0; round < 3; ++round) {
    std::vector<double> flops(threads);
    const double seconds = TimeTogether(threads, [&](int t) { flops[t] = loop(); });
    best = std::max(best, flops[0] * threads / seconds);
  }
  return best;
}

}  // namespace switchyard::bench
