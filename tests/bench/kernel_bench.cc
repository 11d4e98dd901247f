// Speed of the CPU backend's operations against the floor of this machine, on the shapes of `midq` (hidden 2048,
// 64 experts top-8 of width 1024, 16 heads of 128).
//
//   switchyard_bench_kernels [--threads N] [--isa NAME] [--repeat N] [--gib N] [--only SUBSTRING] [--json FILE]
//
// The floor of a case is max(bytes / read bandwidth, FLOP / peak), both measured in this run; weights rotate through
// `gib` GiB, so that they come from memory. Cases are interleaved over the repeats; medians are printed.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <memory>
#include <numeric>
#include <cmath>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/backend/cpu/isa.h"
#include "engine/backend/cpu/memory.h"
#include "engine/base/bf16.h"
#include "engine/base/status_macros.h"
#include "tests/bench/kernel_limits.h"

namespace switchyard::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kHidden = 2048;
constexpr int64_t kWidth = 1024;
constexpr int32_t kExperts = 64;
constexpr int32_t kTopK = 8;
constexpr int32_t kMaxRows = 512;

struct Options {
  int threads = 0;
  std::string isa = "auto";
  int repeat = 5;
  int64_t gib = 3;
  std::string only;
  std::string json;
};

// Small random bfloat16 values at the speed of memory: one block of them, over and over.
class NoiseReader final : public TensorReader {
 public:
  NoiseReader(int64_t rows, int64_t cols) : rows_(rows), cols_(cols), block_(1 << 18) {
    std::mt19937 generator(1);
    std::normal_distribution<float> normal(0.0f, 0.02f);
    for (uint16_t& value : block_) value = FloatToBf16(normal(generator));
  }
  int64_t rows() const override { return rows_; }
  int64_t cols() const override { return cols_; }
  absl::Status ReadRows(int64_t first, int64_t count, DType as, void* out) const override {
    const int64_t values = count * cols_;
    if (as == DType::kF32) {
      for (int64_t i = 0; i < values; ++i) {
        static_cast<float*>(out)[i] = Bf16ToFloat(block_[static_cast<size_t>(first * 7 + i) % block_.size()]);
      }
      return absl::OkStatus();
    }
    for (int64_t i = 0; i < values;) {
      const int64_t n = std::min(values - i, static_cast<int64_t>(block_.size()));
      std::memcpy(static_cast<uint16_t*>(out) + i, block_.data(), static_cast<size_t>(n) * 2);
      i += n;
    }
    return absl::OkStatus();
  }

 private:
  const int64_t rows_;
  const int64_t cols_;
  std::vector<uint16_t> block_;
};

struct Case {
  std::string name;
  double bytes = 0.0;
  double flops = 0.0;
  std::function<void()> run;    // one call; rotates its weights
  std::vector<double> seconds;

  double Median() const {
    std::vector<double> sorted = seconds;
    std::sort(sorted.begin(), sorted.end());
    return sorted[sorted.size() / 2];
  }
};

struct Limits {
  double bandwidth = 0.0;
  double flops = 0.0;
};

template <typename T>
T Must(absl::StatusOr<T> value) {
  if (!value.ok()) {
    std::fprintf(stderr, "%s\n", value.status().ToString().c_str());
    std::exit(1);
  }
  return *std::move(value);
}

class Bench {
 public:
  explicit Bench(const Options& options) : options_(options) {
    BackendOptions backend;
    backend.device = "cpu";
    backend.cpu_isa = options.isa;
    backend.num_threads = options.threads;
    backend_ = Must(CreateBackend(backend)).backend;
    isa_ = Must(cpu::ChooseIsa(options.isa));
    threads_ = options.threads > 0 ? options.threads : static_cast<int>(std::thread::hardware_concurrency());
  }

  void Run() {
    std::printf("%s\n", backend_->description().c_str());
    MeasureLimits();
    LoadWeights();
    AddLinearCases();
    AddMoeCases();
    AddAttentionCases();
    for (int round = -1; round < options_.repeat; ++round) {  // the first round warms up
      for (Case& c : cases_) {
        const Clock::time_point start = Clock::now();
        c.run();
        const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
        if (round >= 0) c.seconds.push_back(seconds);
      }
    }
    Print();
  }

 private:
  bool Wanted(const std::string& name) const {
    return options_.only.empty() || name.find(options_.only) != std::string::npos;
  }

  void MeasureLimits() {
    cpu::Buffer memory = Must(cpu::Buffer::Allocate(options_.gib << 30, "the bandwidth test"));
    std::memset(memory.as<char>(), 1, static_cast<size_t>(memory.bytes()));
    std::vector<int> counts = {1};
    if (threads_ > 1) counts.push_back(threads_);
    for (const int threads : counts) {
      limits_.bandwidth = MeasureReadBandwidth(threads, memory.as<char>(), memory.bytes());
      std::printf("%d threads: read %.1f GB/s;", threads, limits_.bandwidth / 1e9);
      for (const cpu::Isa isa : cpu::AvailableIsas()) {
        const DType dtype = isa >= cpu::Isa::kAvx512Bf16 ? DType::kBF16 : DType::kF32;
        std::printf(" %s %.0f", cpu::IsaName(isa), MeasurePeakFlops(threads, isa, dtype) / 1e9);
      }
      std::printf(" GFLOP/s\n");
    }
    limits_.flops = MeasurePeakFlops(threads_, isa_, DType::kBF16);
  }

  void LoadWeights() {
    const NoiseReader gate(kWidth, kHidden), down(kHidden, kWidth), square(kHidden, kHidden), router(kExperts, kHidden);
    const std::vector<ExpertReaders> readers(kExperts, ExpertReaders{&gate, &gate, &down});
    const double expert_bytes = 3.0 * kHidden * kWidth * 2;
    const int64_t layers = std::max<int64_t>(1, (options_.gib << 30) / static_cast<int64_t>(kExperts * expert_bytes));
    const Clock::time_point start = Clock::now();
    for (int64_t layer = 0; layer < layers; ++layer) {
      layers_.push_back(Must(backend_->LoadExperts(readers, DType::kBF16)));
    }
    std::printf("load: %.2f GB/s\n", static_cast<double>(layers) * kExperts * expert_bytes / 1e9 /
                                         std::chrono::duration<double>(Clock::now() - start).count());
    const auto load = [&](const TensorReader& reader, WeightUse use) {
      const TensorReader* const parts[] = {&reader};
      return Must(backend_->LoadWeight(parts, {}, DType::kBF16, use));
    };
    // The expert GEMMs as plain Linear, 4 MiB each, as many as it takes to leave the caches behind.
    for (int i = 0; i < 160; ++i) up_.push_back(load(gate, WeightUse::kLinear));
    for (int i = 0; i < 160; ++i) down_.push_back(load(down, WeightUse::kLinear));
    for (int i = 0; i < 32; ++i) square_.push_back(load(square, WeightUse::kLinear));
    router_ = load(router, WeightUse::kRouter);
    config_.num_experts = kExperts;
    config_.top_k = kTopK;
    config_.normalize = true;
    routing_ = Must(backend_->AllocateRouting(kMaxRows, config_));
    batches_ = Must(backend_->AllocateExpertBatches(kMaxRows, config_));
    in_ = Must(backend_->AllocateMatrix(kMaxRows, kHidden));
    out_ = Must(backend_->AllocateMatrix(kMaxRows, kHidden));
    rows_ = Must(backend_->AllocateMatrix(kMaxRows * kTopK, kHidden));
    wide_ = Must(backend_->AllocateMatrix(kMaxRows, 3 * kHidden));
    kv_shape_ = {1, 32 * 64 + 64, 16, 16, 128, DType::kBF16};
    cache_ = Must(backend_->AllocateKvCache(kv_shape_));
    CHECK(backend_->PrepareScratch(kMaxRows).ok());
    std::mt19937 generator(2);
    std::normal_distribution<float> normal;
    for (const Matrix& m : {in_, wide_}) {
      for (int64_t i = 0; i < m.rows * m.cols; ++i) static_cast<float*>(m.data)[i] = normal(generator);
    }
  }

  static Matrix First(Matrix matrix, int64_t rows) { return {matrix.data, rows, matrix.cols}; }
  static Matrix Shaped(Matrix matrix, int64_t rows, int64_t cols) { return {matrix.data, rows, cols}; }

  void Add(const std::string& name, double bytes, double flops, std::function<void()> run) {
    if (Wanted(name)) cases_.push_back({name, bytes, flops, std::move(run), {}});
  }

  // Ten different weights a call: long enough to time, all of them cold.
  void AddLinear(const std::string& name, std::vector<std::unique_ptr<Weight>>* weights, int64_t in, int64_t out) {
    constexpr int kCalls = 10;
    for (const int64_t rows : {1, 4, 8, 16, 32, 64, 128, 512}) {
      Add(name + " M " + std::to_string(rows), kCalls * 2.0 * static_cast<double>(in * out),
          kCalls * 2.0 * static_cast<double>(rows * in * out), [=, this] {
            for (int i = 0; i < kCalls; ++i) {
              std::rotate(weights->begin(), weights->begin() + 1, weights->end());
              backend_->Linear(Shaped(in_, rows, in), *weights->front(), OutputMode::kAssign, Shaped(rows_, rows, out));
            }
          });
    }
  }

  void AddLinearCases() {
    AddLinear("linear 2048 > 1024", &up_, kHidden, kWidth);
    AddLinear("linear 1024 > 2048", &down_, kWidth, kHidden);
    AddLinear("linear 2048 > 2048", &square_, kHidden, kHidden);
  }

  // Random distinct experts per token, as a router with random weights chooses them.
  void RouteRandomly(int32_t tokens, uint32_t seed) {
    std::mt19937 generator(seed);
    std::vector<int32_t> ids(kExperts);
    std::iota(ids.begin(), ids.end(), 0);
    routing_.num_tokens = tokens;
    for (int32_t t = 0; t < tokens; ++t) {
      std::shuffle(ids.begin(), ids.end(), generator);
      std::copy_n(ids.begin(), kTopK, routing_.expert_ids + t * kTopK);
      std::fill_n(routing_.expert_weights + t * kTopK, kTopK, 1.0f / kTopK);
    }
    backend_->GroupByExpert(routing_, &batches_);
  }

  void RouteTo(const std::vector<int32_t>& ids) {
    routing_.num_tokens = static_cast<int32_t>(ids.size()) / kTopK;
    std::copy(ids.begin(), ids.end(), routing_.expert_ids);
    backend_->GroupByExpert(routing_, &batches_);
  }

  int ActiveExperts() const {
    int active = 0;
    for (int32_t e = 0; e < kExperts; ++e) active += batches_.expert_offsets[e + 1] > batches_.expert_offsets[e];
    return active;
  }

  void AddMoeCases() {
    for (const int32_t tokens : {1, 8, 16, 32, 512}) {
      const std::string suffix = " tokens " + std::to_string(tokens);
      RouteRandomly(tokens, 5);
      const double bytes = ActiveExperts() * 3.0 * kHidden * kWidth * 2;
      const double flops = 6.0 * tokens * kTopK * kHidden * kWidth;
      const std::vector<int32_t> ids(routing_.expert_ids, routing_.expert_ids + tokens * kTopK);
      Add("experts" + suffix, bytes, flops, [=, this] {
        RouteTo(ids);
        std::rotate(layers_.begin(), layers_.begin() + 1, layers_.end());
        backend_->ExpertMlp(First(in_, tokens), *layers_.front(), batches_, First(rows_, tokens * kTopK));
      });
      Add("route" + suffix, 4.0 * kHidden * kExperts, 0.0,
          [=, this] { backend_->Route(First(in_, tokens), *router_, config_, &routing_); });
      Add("combine" + suffix, 4.0 * tokens * (kTopK + 2) * kHidden, 0.0, [=, this] {
        RouteTo(ids);
        backend_->Combine(First(rows_, tokens * kTopK), routing_, batches_, First(out_, tokens));
      });
    }
  }

  void AddAttentionCases() {
    for (const int32_t kv_heads : {16, 4}) {
      AttentionShape shape;
      shape.num_heads = 16;
      shape.num_kv_heads = kv_heads;
      shape.head_dim = 128;
      shape.scale = 0.0884f;
      for (int m = 0; m < 64; ++m) shape.rope_inv_freq.push_back(std::pow(10000.0f, -static_cast<float>(m) / 64.0f));
      const std::string heads = " kv heads " + std::to_string(kv_heads);
      if (kv_heads != kv_shape_.num_kv_heads) {
        kv_shape_.num_kv_heads = kv_heads;
        grouped_cache_ = Must(backend_->AllocateKvCache(kv_shape_));
      }
      KvCache* const cache = kv_heads == 16 ? cache_.get() : grouped_cache_.get();
      for (const int32_t sequences : {1, 8, 32}) {
        constexpr int32_t kContext = 1024;
        const double bytes = 2.0 * sequences * kContext * kv_heads * 128 * 2;
        AddAttention("decode at 1024, " + std::to_string(sequences) + " sequences" + heads, shape, cache, sequences, 1,
                     kContext - 1, bytes, 4.0 * sequences * kContext * 16 * 128);
      }
      AddAttention("prefill 512" + heads, shape, cache, 1, 512, 0, 2.0 * 512 * kv_heads * 128 * 2,
                   4.0 * 16 * 128 * 512 * 512 / 2);
    }
  }

  void AddAttention(const std::string& name, const AttentionShape& shape, KvCache* cache, int32_t sequences,
                    int32_t tokens, int32_t position, double bytes, double flops) {
    const int32_t blocks = 64;
    auto tables = std::make_shared<std::vector<int32_t>>(sequences * blocks);
    std::iota(tables->begin(), tables->end(), 0);
    auto slices = std::make_shared<std::vector<AttentionSlice>>();
    for (int32_t s = 0; s < sequences; ++s) {
      slices->push_back({int64_t{s} * tokens, tokens, position, tables->data() + s * blocks});
    }
    const Matrix qkv = Shaped(wide_, sequences * tokens, shape.qkv_size());
    Add("prepare " + name, 0.0, 0.0, [=, this] {
      (void)tables;
      backend_->PrepareQkv(shape, *slices, nullptr, nullptr, 0, *cache, qkv);
    });
    Add("attention " + name, bytes, flops, [=, this] {
      (void)tables;
      backend_->Attention(shape, *slices, 0, *cache, qkv, First(out_, sequences * tokens));
    });
  }

  void Print() {
    std::printf("%-52s %9s %8s %9s %7s\n", "", "us", "GB/s", "GFLOP/s", "floor");
    std::string json = "{\"bandwidth\": " + std::to_string(limits_.bandwidth) +
                       ", \"flops\": " + std::to_string(limits_.flops) + ", \"cases\": [";
    for (const Case& c : cases_) {
      const double seconds = c.Median();
      const double floor = std::max(c.bytes / limits_.bandwidth, c.flops / limits_.flops);
      std::printf("%-52s %9.1f %8.1f %9.0f %6.0f%%\n", c.name.c_str(), seconds * 1e6, c.bytes / seconds / 1e9,
                  c.flops / seconds / 1e9, 100.0 * floor / seconds);
      json += std::string(&c == cases_.data() ? "" : ", ") + "{\"name\": \"" + c.name +
              "\", \"seconds\": " + std::to_string(seconds) +
              ", \"share_of_floor\": " + std::to_string(floor / seconds) + "}";
    }
    if (!options_.json.empty()) std::ofstream(options_.json) << json << "]}\n";
  }

  const Options options_;
  std::unique_ptr<Backend> backend_;
  cpu::Isa isa_ = cpu::Isa::kScalar;
  int threads_ = 0;
  Limits limits_;
  std::vector<std::unique_ptr<ExpertWeights>> layers_;
  std::vector<std::unique_ptr<Weight>> up_, down_, square_;
  std::unique_ptr<Weight> router_;
  RouterConfig config_;
  Routing routing_;
  ExpertBatches batches_;
  KvCacheShape kv_shape_;
  std::unique_ptr<KvCache> cache_, grouped_cache_;
  Matrix in_, out_, rows_, wide_;
  std::vector<Case> cases_;
};

}  // namespace
}  // namespace switchyard::bench

int main(int argc, char** argv) {
  switchyard::bench::Options options;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string flag = argv[i];
    const char* const value = argv[i + 1];
    if (flag == "--threads") options.threads = std::atoi(value);
    if (flag == "--isa") options.isa = value;
    if (flag == "--repeat") options.repeat = std::atoi(value);
    if (flag == "--gib") options.gib = std::atoi(value);
    if (flag == "--only") options.only = value;
    if (flag == "--json") options.json = value;
  }
  switchyard::bench::Bench(options).Run();
  return 0;
}
