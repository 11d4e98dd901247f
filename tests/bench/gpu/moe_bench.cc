// The experts of one layer: every provider on the same rows and weights.
#include <algorithm>
#include <iterator>

#include "engine/backend/cuda/wgmma_gemm.h"
#include "tests/bench/gpu/bench.h"
#include "tests/bench/gpu/moe_providers.h"

namespace switchyard::bench {
namespace {

// Of any kernel; native has no tiles of 256.
const std::vector<int> kTiles(std::begin(cuda::kWgmmaTileTokens), std::end(cuda::kWgmmaTileTokens));
constexpr int kWidestNativeTile = 128;

std::vector<int64_t> TokensOf(const Options& options) {
  if (options.tiny) return {1, 5, 17};
  return MoeTokens(options.quick);
}

class MoeSection {
 public:
  MoeSection(Bench* bench, const Model& model)
      : bench_(bench), model_(model), providers_(model, TokensOf(bench->options).back()) {}

  void Run(int64_t tokens, Skew skew) {
    providers_.Use(tokens, skew, kTiles);
    CompareProviders();
    if (skew == Skew::kUniform) MeasureParts();
  }

 private:
  // Tiles far from the rows that an expert has would only cost measuring time.
  bool IsWorthwhile(ExpertKernel kernel, int tile) const {
    if (kernel == ExpertKernel::kNative && tile > kWidestNativeTile) return false;
    const double average = providers_.rows_per_expert();
    return tile == providers_.chosen_tile(kernel) ||
           (tile >= std::min(64.0, average / 8) && tile <= std::max(16.0, 4 * average));
  }

  std::vector<Candidate> Products() {
    std::vector<Candidate> products;
    for (const ExpertKernel kernel : MoeProviders::Kernels()) {
      for (const int tile : kTiles) {
        if (!IsWorthwhile(kernel, tile)) continue;
        products.push_back(providers_.Kernel(kernel, tile));
        std::string& name = products.back().name;
        name.append("/").append(std::to_string(tile)).append(tile == providers_.chosen_tile(kernel) ? "*" : "");
      }
    }
    std::vector<Candidate> libraries = providers_.Libraries();
    std::move(libraries.begin(), libraries.end(), std::back_inserter(products));
    return products;
  }

  void CompareProviders() {
    std::vector<Candidate> candidates = Products();
    for (const Candidate& candidate : candidates) {
      for (const int call : {1, 0}) {
        const double error = providers_.ErrorOf(candidate, call);
        if (call != 0 && !bench_->options.tiny) continue;  // only warms up
        bench_->Check("moe " + providers_.CaseName() + " " + candidate.name, error);
      }
    }
    for (Candidate& candidate : candidates) {
      candidate.run = [this, products = candidate.run](int call) {
        products(call);
        providers_.Combine(call);
      };
    }
    const std::vector<Spread> times = TimeSideBySide(candidates, bench_->Plan(kRoutingSets));
    for (size_t i = 0; i < candidates.size(); ++i) Add(candidates[i].name, times[i], 3.0, true);
  }

  // matrices: how many of the expert's three are read.
  void Add(const std::string& provider, const Spread& us, double matrices, bool whole_layer) {
    Result result;
    result.section = "moe";
    result.name = providers_.CaseName();
    result.provider = provider;
    result.us = us;
    const double matrix = static_cast<double>(model_.hidden_size * model_.moe_intermediate_size);
    result.bytes = matrices * providers_.touched() * matrix * 2;
    result.flops = matrices * 2.0 * static_cast<double>(providers_.rows()) * matrix;
    result.floor_us = bench_->limits.FloorUs(result.bytes, result.flops);
    if (whole_layer) result.targets = TargetsOf();
    result.more = {{"tokens", static_cast<double>(providers_.tokens())},
                   {"touched_experts", providers_.touched()},
                   {"rows_per_expert", providers_.rows_per_expert()}};
    bench_->report.Add(std::move(result));
  }

  Targets TargetsOf() const {
    const int64_t tokens = providers_.tokens();
    if (tokens <= 4 && model_.num_experts >= 32) return {"21-25%", "55%", "70%"};
    if (tokens >= 8192) return {"242 TF", "450 TF", "600 TF"};
    if (tokens <= 256 && 2 * providers_.touched() >= model_.num_experts) return {"torch", "80%", "90%"};
    return {};
  }

  void MeasureParts() {
    const int tile = providers_.chosen_tile();
    MoeProviders* const p = &providers_;
    std::vector<Candidate> parts = {
        {"  gate_up", [p, tile](int call) { p->GateUp(call, tile); }},
        {"  down", [p, tile](int call) { p->Down(call, tile); }},
        {"  combine", [p](int call) { p->Combine(call); }},
        {"  route+group", [p, tile](int call) { p->Route(call, tile); }},
        {"  route+layer", [p, tile](int call) {
           p->Route(call, tile);
           p->GateUp(call, tile);
           p->Down(call, tile);
           p->Combine(call);
         }}};
    if (TheDevice().has_wgmma) {
      const int wide = p->chosen_tile(ExpertKernel::kWgmma);
      parts.push_back({"  wgmma gate_up", [p, wide](int call) { p->GateUp(call, wide, ExpertKernel::kWgmma); }});
      parts.push_back({"  wgmma down", [p, wide](int call) { p->Down(call, wide, ExpertKernel::kWgmma); }});
    }
    const std::vector<Spread> times = TimeSideBySide(parts, bench_->Plan(kRoutingSets));
    const double matrices[] = {2.0, 1.0, 0.0, 0.0, 3.0, 2.0, 1.0};
    for (size_t i = 0; i < parts.size(); ++i) Add(parts[i].name, times[i], matrices[i], false);
  }

  Bench* const bench_;
  const Model model_;
  MoeProviders providers_;
};

}  // namespace

void MeasureMoe(Bench* bench) {
  bench->report.Heading("moe layer (* what the backend chooses)");
  for (const Model& model : bench->models()) {
    MoeSection section(bench, model);
    for (const int64_t tokens : TokensOf(bench->options)) {
      section.Run(tokens, Skew::kUniform);
      if (!bench->options.quick) section.Run(tokens, Skew::kZipf);
    }
  }
}

}  // namespace switchyard::bench
