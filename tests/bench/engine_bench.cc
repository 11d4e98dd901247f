// Whole-engine speed on dummy weights of a real shape, against the floor of this machine.
//
//   switchyard_bench_engine [--model-dir DIR] [--threads N] [--dtype bfloat16] [--isa NAME] [--repeat N] [--json FILE]
//                           [--quantized mxfp4|fp8] [--only CASE]
//
// Without --model-dir it makes `midq`: Qwen3-MoE architecture, hidden 2048, 8 layers, 64 experts top-8, expert width
// 1024, 16 heads of 128, vocabulary 32,000: 3.49 billion parameters, 6.5 GiB in bfloat16. With --quantized it has three
// layers with the experts of gpt-oss-20b (hidden and width 2880, 32 experts top-4), stored so; it is loaded twice, kept
// and dequantized, and both take turns.
//
// The floor of a step is max(bytes / read bandwidth, FLOP / bf16 peak), both measured in this run. Bytes are what the
// step must read at least: the experts that its own routing touched (counted, not assumed), the dense weights, the KV
// of its sequences. FLOP are the multiplications of those rows. Limits and cases are interleaved over the repeats and
// medians are printed.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "engine/backend/cpu/isa.h"
#include "engine/backend/cpu/memory.h"
#include "engine/engine.h"
#include "tests/bench/kernel_limits.h"

namespace switchyard::bench {
namespace {

constexpr const char* kMidq = R"({
  "model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"], "hidden_act": "silu",
  "vocab_size": 32000, "hidden_size": 2048, "num_hidden_layers": 8, "num_attention_heads": 16,
  "num_key_value_heads": 16, "head_dim": 128, "max_position_embeddings": 4096, "intermediate_size": 1024,
  "moe_intermediate_size": 1024, "num_experts": 64, "num_experts_per_tok": 8, "norm_topk_prob": true,
  "decoder_sparse_step": 1, "mlp_only_layers": [], "rope_theta": 10000.0, "rms_norm_eps": 1e-06,
  "tie_word_embeddings": false, "torch_dtype": "bfloat16"
})";

constexpr const char* kQuantized = R"({
  "model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"], "hidden_act": "silu",
  "vocab_size": 32000, "hidden_size": 2880, "num_hidden_layers": 3, "num_attention_heads": 64,
  "num_key_value_heads": 8, "head_dim": 64, "max_position_embeddings": 4096, "intermediate_size": 2880,
  "moe_intermediate_size": 2880, "num_experts": 32, "num_experts_per_tok": 4, "norm_topk_prob": true,
  "decoder_sparse_step": 1, "mlp_only_layers": [], "rope_theta": 10000.0, "rms_norm_eps": 1e-06,
  "tie_word_embeddings": false, "torch_dtype": "bfloat16"
})";

constexpr int32_t kBlockSize = 16;
constexpr int32_t kPrefillTokens = 512;
constexpr int32_t kContext = 128;      // tokens in the cache when decoding is measured
constexpr int kDecodeSteps = 12;

struct MachineLimits {
  double read_bytes_per_second = 0.0;  // all threads together, huge pages, far larger than the caches
  double bf16_flops = 0.0;             // all threads together, by the instruction set that runs
};

struct Case {
  std::string name;
  int32_t num_sequences = 0;   // 0: prefill of one sequence
  size_t engine = 0;
};

struct Measurement {
  std::vector<double> seconds;
  std::vector<double> floors;
  int64_t tokens = 0;
};

MachineLimits MeasureLimits(int threads, cpu::Isa isa, const cpu::Buffer& memory) {
  MachineLimits limits;
  for (int pass = 0; pass < 3; ++pass) {
    limits.read_bytes_per_second = std::max(limits.read_bytes_per_second,
                                            MeasureReadBandwidth(threads, memory.as<char>(), memory.bytes()));
  }
  limits.bf16_flops = MeasurePeakFlops(threads, isa, DType::kBF16);
  return limits;
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

class Bench {
 public:
  Bench(Engine* engine, const nlohmann::json& config) : engine_(engine), config_(config) {
    std::mt19937 random(1);
    const int32_t max_tokens = std::max<int32_t>(kPrefillTokens, kContext + 64);
    blocks_per_sequence_ = (max_tokens + kBlockSize - 1) / kBlockSize;
    for (int s = 0; s < 32; ++s) {
      tokens_.emplace_back();
      blocks_.emplace_back();
      for (int i = 0; i < max_tokens; ++i) {
        tokens_[s].push_back(static_cast<int32_t>(random() % engine->facts().vocab_size));
      }
      for (int b = 0; b < blocks_per_sequence_; ++b) blocks_[s].push_back(s * blocks_per_sequence_ + b);
    }
    sampling_.temperature = 0.0f;
  }

  // One prefill of 512 tokens. Returns the wall time.
  double Prefill() { return Step({0}, kPrefillTokens, 0); }

  // Decode steps of `count` sequences after a context; the wall time of each.
  std::vector<double> Decode(int32_t count, std::vector<double>* floors, const MachineLimits& limits) {
    std::vector<int> sequences(count);
    for (int s = 0; s < count; ++s) {
      sequences[s] = s;
      Step({s}, kContext, 0);
    }
    std::vector<double> seconds;
    for (int i = 0; i < kDecodeSteps; ++i) {
      seconds.push_back(Step(sequences, 1, kContext + i));
      floors->push_back(Floor(limits, count, count, kContext + i + 1));
    }
    return seconds;
  }

  // Seconds that the last step needs at least.
  double Floor(const MachineLimits& limits, int64_t num_tokens, int64_t num_sequences, int64_t context) const {
    const int64_t hidden = config_.at("hidden_size"), width = config_.at("moe_intermediate_size");
    const int64_t layers = config_.at("num_hidden_layers"), vocab = config_.at("vocab_size");
    const int64_t heads = config_.at("num_attention_heads"), kv_heads = config_.at("num_key_value_heads");
    const int64_t head_dim = config_.at("head_dim"), experts = config_.at("num_experts");
    const int64_t bytes_per_value = DTypeBytes(engine_->facts().dtype);
    const std::string& experts_as = engine_->facts().expert_dtype;
    const double bytes_per_expert_value = experts_as == "mxfp4" ? 17.0 / 32
                                          : experts_as == "fp8" ? 33.0 / 32
                                                                : static_cast<double>(bytes_per_value);
    const int64_t attention = hidden * head_dim * (2 * heads + 2 * kv_heads);
    double bytes = 0.0, flops = 0.0;
    for (const MoeLayerStats& layer : stats_.moe_layers) {
      const auto touched = std::count_if(layer.tokens_per_expert.begin(), layer.tokens_per_expert.end(),
                                         [](int32_t tokens) { return tokens > 0; });
      bytes += static_cast<double>(touched * 3 * hidden * width) * bytes_per_expert_value;
      flops += 2.0 * num_tokens * engine_->facts().top_k * 3 * hidden * width;
    }
    bytes += static_cast<double>(layers) * (attention * bytes_per_value + experts * hidden * 4);
    flops += 2.0 * num_tokens * layers * attention;
    bytes += static_cast<double>(num_sequences) * context * engine_->facts().kv_bytes_per_token;
    // Causal attention: each token reads the keys and values up to itself.
    const double pairs = num_tokens == num_sequences ? static_cast<double>(num_tokens) * context
                                                     : 0.5 * num_tokens * (num_tokens + 1);
    flops += pairs * layers * heads * head_dim * 4;
    bytes += static_cast<double>(vocab) * hidden * bytes_per_value;
    flops += 2.0 * num_sequences * vocab * hidden;
    return std::max(bytes / limits.read_bytes_per_second, flops / limits.bf16_flops);
  }

 private:
  double Step(const std::vector<int>& sequences, int32_t count, int32_t position) {
    StepBatch batch;
    for (const int s : sequences) {
      SequenceSlice slice;
      slice.sequence_id = s;
      slice.tokens = std::span(tokens_[s]).subspan(position, count);
      slice.first_position = position;
      slice.block_table = blocks_[s];
      slice.sample = true;
      slice.sampling = &sampling_;
      batch.slices.push_back(slice);
    }
    const auto start = std::chrono::steady_clock::now();
    if (const absl::Status status = engine_->Launch(batch); !status.ok()) Fail(status);
    const auto output = engine_->Collect();
    if (!output.ok()) Fail(output.status());
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    stats_ = (*output)->stats;
    return seconds;
  }

  [[noreturn]] static void Fail(const absl::Status& status) {
    std::fprintf(stderr, "%s\n", status.ToString().c_str());
    std::exit(1);
  }

  Engine* const engine_;
  const nlohmann::json config_;
  int32_t blocks_per_sequence_ = 0;
  std::vector<std::vector<int32_t>> tokens_;
  std::vector<std::vector<int32_t>> blocks_;
  SamplingParams sampling_;
  StepStats stats_;
};

int Run(int argc, char** argv) {
  std::map<std::string, std::string> flags = {
      {"--model-dir", ""}, {"--threads", "2"}, {"--dtype", "bfloat16"}, {"--repeat", "5"}, {"--json", ""},
      {"--isa", "auto"}, {"--quantized", ""}, {"--only", ""}};
  for (int i = 1; i < argc; i += 2) {
    if (i + 1 >= argc || flags.count(argv[i]) == 0) {
      std::fprintf(stderr, "usage: %s [--model-dir DIR] [--threads N] [--dtype T] [--isa I] [--repeat N] [--json FILE]"
                           " [--quantized FORMAT] [--only CASE]\n", argv[0]);
      return 2;
    }
    flags[argv[i]] = argv[i + 1];
  }
  std::filesystem::path folder = flags["--model-dir"];
  if (folder.empty()) {
    const std::string& format = flags["--quantized"];
    nlohmann::json config = nlohmann::json::parse(format.empty() ? kMidq : kQuantized);
    if (format == "mxfp4") config["quantization_config"] = {{"quant_method", "mxfp4"}};
    if (format == "fp8") config["quantization_config"] = {{"quant_method", "fp8"}, {"weight_block_size", {128, 128}}};
    folder = std::filesystem::temp_directory_path() / ("switchyard_bench_midq" + format);
    std::filesystem::create_directories(folder);
    std::ofstream(folder / "config.json") << config.dump(2);
  }
  EngineOptions options;
  options.model_dir = folder.string();
  options.load_format = LoadFormat::kDummy;
  options.dtype = flags["--dtype"];
  options.cpu_isa = flags["--isa"];
  options.num_threads = std::stoi(flags["--threads"]);
  options.max_model_len = 1024;
  options.max_num_seqs = 32;
  options.max_num_batched_tokens = kPrefillTokens;
  options.block_size = kBlockSize;
  options.kv_cache_bytes = int64_t{2} << 30;
  nlohmann::json config;
  std::ifstream(folder / "config.json") >> config;
  const cpu::Isa isa = cpu::ChooseIsa(options.cpu_isa).value();
  std::vector<std::unique_ptr<Engine>> engines;
  std::vector<Bench> benches;
  std::vector<std::string> choices = {"auto"};
  if (!flags["--quantized"].empty()) choices = {"keep", "dequantize"};
  for (const std::string& choice : choices) {
    options.quantization = choice;
    auto engine = CreateEngine(options);
    if (!engine.ok()) {
      std::fprintf(stderr, "%s\n", engine.status().ToString().c_str());
      return 1;
    }
    const ModelFacts& facts = (*engine)->facts();
    std::printf("%s: %.2f B parameters (%.2f B active), experts %s, %.2f GiB, %s, made in %.1f s\n",
                facts.architecture.c_str(), facts.num_parameters / 1e9, facts.num_active_parameters / 1e9,
                facts.expert_dtype.c_str(), facts.weight_bytes / 1073741824.0, facts.backend.c_str(),
                facts.load_seconds);
    benches.emplace_back(engine->get(), config);
    engines.push_back(*std::move(engine));
  }
  const ModelFacts& facts = engines[0]->facts();

  std::vector<Case> cases;
  for (const int n : {0, 1, 4, 8, 16, 32}) {
    const std::string name = n == 0 ? "prefill 512" : "decode " + std::to_string(n);
    for (size_t e = 0; e < engines.size(); ++e) {
      cases.push_back({engines.size() == 1 ? name : name + " " + engines[e]->facts().expert_dtype, n, e});
    }
  }
  std::erase_if(cases, [&](const Case& c) { return c.name.find(flags["--only"]) == std::string::npos; });
  std::map<std::string, Measurement> results;
  std::vector<double> bandwidths, peaks;
  const auto memory = cpu::Buffer::Allocate(int64_t{2} << 30, "the bandwidth test");
  if (!memory.ok()) {
    std::fprintf(stderr, "%s\n", memory.status().ToString().c_str());
    return 1;
  }
  std::memset(memory->as<char>(), 1, static_cast<size_t>(memory->bytes()));
  for (int repeat = 0; repeat < std::stoi(flags["--repeat"]); ++repeat) {
    const MachineLimits limits = MeasureLimits(options.num_threads, isa, *memory);
    bandwidths.push_back(limits.read_bytes_per_second);
    peaks.push_back(limits.bf16_flops);
    std::printf("round %d: %d threads read %.1f GB/s, bf16 %.0f GFLOP/s (%s)\n", repeat + 1, options.num_threads,
                limits.read_bytes_per_second / 1e9, limits.bf16_flops / 1e9, cpu::IsaName(isa));
    for (const Case& c : cases) {
      Measurement& m = results[c.name];
      Bench& bench = benches[c.engine];
      if (c.num_sequences == 0) {
        m.tokens = kPrefillTokens;
        for (int i = 0; i < 2; ++i) {
          m.seconds.push_back(bench.Prefill());
          m.floors.push_back(bench.Floor(limits, kPrefillTokens, 1, kPrefillTokens));
        }
      } else {
        m.tokens = c.num_sequences;
        for (const double s : bench.Decode(c.num_sequences, &m.floors, limits)) m.seconds.push_back(s);
      }
    }
  }
  std::printf("\n%-22s %10s %10s %10s %8s\n", "case", "step ms", "tok/s", "floor ms", "share");
  nlohmann::json json = {{"model", facts.architecture}, {"backend", facts.backend},
                         {"read_bytes_per_second", Median(bandwidths)}, {"bf16_flops", Median(peaks)}};
  for (const Case& c : cases) {
    const Measurement& m = results[c.name];
    const double seconds = Median(m.seconds), floor = Median(m.floors);
    std::printf("%-22s %10.1f %10.1f %10.1f %7.0f%%\n", c.name.c_str(), seconds * 1e3, m.tokens / seconds, floor * 1e3,
                100.0 * floor / seconds);
    json["cases"].push_back({{"name", c.name}, {"step_seconds", seconds}, {"tokens_per_second", m.tokens / seconds},
                             {"floor_seconds", floor}, {"share_of_floor", floor / seconds}});
  }
  if (!flags["--json"].empty()) std::ofstream(flags["--json"]) << json.dump(2) << '\n';
  return 0;
}

}  // namespace
}  // namespace switchyard::bench

int main(int argc, char** argv) { return switchyard::bench::Run(argc, argv); }
