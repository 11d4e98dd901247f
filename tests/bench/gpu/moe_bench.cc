// The experts of one layer: every provider on the same rows and weights.
#include <algorithm>
#include <fstream>
#include <memory>

#include "engine/backend/cuda/wgmma_gemm.h"
#include "engine/backend/cuda/wgmma_layout.h"
#include "tests/bench/gpu/bench.h"
#include "tests/bench/gpu/device.h"
#include "tests/bench/gpu/moe_layer.h"
#include "tests/bench/gpu/routing.h"

namespace switchyard::bench {
namespace {

constexpr int kNativeTiles[] = {8, 16, 32, 64, 128};

struct Case {
  int64_t tokens;
  Skew skew;
  double touched = 0.0;  // experts with rows, on average over the sets
};

std::vector<int64_t> TokensOf(const Options& options) {
  if (options.tiny) return {1, 5, 17};
  return MoeTokens(options.quick);
}

// All data of one model: four sets of weights, each with a draw of expert ids.
class MoeSection {
 public:
  MoeSection(Bench* bench, const Model& model)
      : bench_(bench), model_(model), buffers_(model, TokensOf(bench->options).back()) {
    const int64_t max_tokens = TokensOf(bench->options).back();
    for (int set = 0; set < kRoutingSets; ++set) {
      experts_.emplace_back(model, static_cast<uint64_t>(set) + 1);
      batches_.push_back(std::make_unique<RoutedBatch>(model, max_tokens));
    }
    scratch_ = Array<uint16_t>(std::max(
        CublasGrouped::ScratchElements(experts_[0], max_tokens * model.top_k),
        PaddedScratchElements(experts_[0], std::min(max_tokens, kMaxPaddedTokens))));
  }

  void Run(Case c) {
    case_ = c;
    chosen_tile_ = cuda::ChooseTileTokens(Rows(), model_.num_experts);
    chosen_wgmma_tile_ = cuda::ChooseWgmmaTileTokens(Rows(), model_.num_experts);
    for (int set = 0; set < kRoutingSets; ++set) {
      batches_[static_cast<size_t>(set)]->Use(DrawRouting(model_, c.tokens, c.skew, set));
      case_.touched += static_cast<double>(CountTouched(BatchOf(set).draw().ids, model_.num_experts)) / kRoutingSets;
      for (const int tile : cuda::kWgmmaTileTokens) BatchOf(set).Group(tile);
    }
    Synchronize();
    CompareProviders();
    if (c.skew == Skew::kUniform) MeasureParts();
  }

 private:
  int64_t Rows() const { return case_.tokens * model_.top_k; }
  const ExpertMatrices& ExpertsOf(int call) const { return experts_[static_cast<size_t>(call % kRoutingSets)]; }
  RoutedBatch& BatchOf(int call) const { return *batches_[static_cast<size_t>(call % kRoutingSets)]; }
  std::string Name() const {
    return model_.name + " T=" + std::to_string(case_.tokens) + " " + SkewName(case_.skew);
  }

  void Combine(int call) { RunCombine(model_, BatchOf(call), BatchOf(call).weights(), case_.tokens, &buffers_); }
  void GateUp(int call, int tile, ExpertKernel kernel = ExpertKernel::kNative) {
    RunGateUp(ExpertsOf(call), &BatchOf(call), Rows(), tile, &buffers_, kernel);
  }
  void Down(int call, int tile, ExpertKernel kernel = ExpertKernel::kNative) {
    RunDown(ExpertsOf(call), &BatchOf(call), Rows(), tile, &buffers_, kernel);
  }

  // Tiles far from the rows that an expert has would only cost measuring time.
  bool IsWorthwhile(int tile, int chosen) const {
    const double average = static_cast<double>(Rows()) / case_.touched;
    return tile == chosen || (tile >= std::min(64.0, average / 8) && tile <= std::max(16.0, 4 * average));
  }

  void AddKernel(ExpertKernel kernel, int tile, int chosen, std::vector<Candidate>* candidates) {
    if (!IsWorthwhile(tile, chosen)) return;
    tiles_of_candidate_.push_back(tile);
    const std::string name = kernel == ExpertKernel::kNative ? "native/" : "wgmma/";
    candidates->push_back({name + std::to_string(tile) + (tile == chosen ? "*" : ""), [=, this](int call) {
                             GateUp(call, tile, kernel);
                             Down(call, tile, kernel);
                             Combine(call);
                           }});
  }

  std::vector<Candidate> Providers() {
    std::vector<Candidate> candidates;
    for (const int tile : kNativeTiles) AddKernel(ExpertKernel::kNative, tile, chosen_tile_, &candidates);
    if (TheDevice().has_wgmma) {
      for (const int tile : cuda::kWgmmaTileTokens) {
        AddKernel(ExpertKernel::kWgmma, tile, chosen_wgmma_tile_, &candidates);
      }
    }
    for (int set = 0; set < kRoutingSets; ++set) {
      grouped_.push_back(std::make_unique<CublasGrouped>(ExpertsOf(set), &BatchOf(set)));
    }
    tiles_of_candidate_.push_back(0);
    candidates.push_back({"cublas_grouped",
                          [this](int call) {
                            grouped_[static_cast<size_t>(call % kRoutingSets)]->Run(&buffers_, scratch_.get());
                            Combine(call);
                          },
                          /*graph=*/false});
    if (case_.tokens > kMaxPaddedTokens) return candidates;
    tiles_of_candidate_.push_back(0);
    candidates.push_back({"cublas_padded", [this](int call) {
                            RunCublasPadded(ExpertsOf(call), BatchOf(call), &buffers_, scratch_.get());
                            Combine(call);
                          }});
    return candidates;
  }

  void CompareProviders() {
    grouped_.clear();
    tiles_of_candidate_.clear();
    const std::vector<Candidate> candidates = Providers();
    for (const Candidate& candidate : candidates) {
      for (const int call : {1, 0}) {
        buffers_.ResetX();
        buffers_.PoisonRows();
        candidate.run(call);
        Synchronize();
        if (call != 0 && !bench_->options.tiny) continue;  // only warms up
        bench_->Check("moe " + Name() + " " + candidate.name,
                      MoeError(model_, ExpertsOf(call), BatchOf(call), buffers_));
      }
    }
    const std::vector<Spread> times = TimeSideBySide(candidates, bench_->Plan(kRoutingSets));
    for (size_t i = 0; i < candidates.size(); ++i) Add(candidates[i].name, times[i], 3.0, true);
    AddTuningRow(candidates, times);
  }

  // matrices: how many of the expert's three are read.
  void Add(const std::string& provider, const Spread& us, double matrices, bool whole_layer) {
    Result result;
    result.section = "moe";
    result.name = Name();
    result.provider = provider;
    result.us = us;
    const double matrix = static_cast<double>(model_.hidden_size * model_.moe_intermediate_size);
    result.bytes = matrices * case_.touched * matrix * 2;
    result.flops = matrices * 2.0 * static_cast<double>(Rows()) * matrix;
    result.floor_us = bench_->limits.FloorUs(result.bytes, result.flops);
    if (whole_layer) result.targets = TargetsOf();
    result.more = {{"tokens", static_cast<double>(case_.tokens)},
                   {"touched_experts", case_.touched},
                   {"rows_per_expert", static_cast<double>(Rows()) / case_.touched}};
    bench_->report.Add(std::move(result));
  }

  Targets TargetsOf() const {
    if (case_.tokens <= 4 && model_.num_experts >= 32) return {"21-25%", "55%", "70%"};
    if (case_.tokens >= 8192) return {"242 TF", "450 TF", "600 TF"};
    if (case_.tokens <= 256 && 2 * case_.touched >= model_.num_experts) return {"torch", "80%", "90%"};
    return {};
  }

  void MeasureParts() {
    const int tile = chosen_tile_;
    const auto route = [this, tile](int call) {
      RunRoute(model_, ExpertsOf(call), case_.tokens, &buffers_);
      BatchOf(call).Group(tile);
    };
    std::vector<Candidate> parts = {
        {"  gate_up", [this, tile](int call) { GateUp(call, tile); }},
        {"  down", [this, tile](int call) { Down(call, tile); }},
        {"  combine", [this](int call) { Combine(call); }},
        {"  route+group", route},
        {"  route+layer", [this, tile, route](int call) {
           route(call);
           GateUp(call, tile);
           Down(call, tile);
           BatchOf(call).CollectSeconds(tile);
           Combine(call);
         }}};
    if (TheDevice().has_wgmma) {
      const int wide = chosen_wgmma_tile_;
      parts.push_back({"  wgmma gate_up", [this, wide](int call) { GateUp(call, wide, ExpertKernel::kWgmma); }});
      parts.push_back({"  wgmma down", [this, wide](int call) { Down(call, wide, ExpertKernel::kWgmma); }});
    }
    const std::vector<Spread> times = TimeSideBySide(parts, bench_->Plan(kRoutingSets));
    const double matrices[] = {2.0, 1.0, 0.0, 0.0, 3.0, 2.0, 1.0};
    for (size_t i = 0; i < parts.size(); ++i) Add(parts[i].name, times[i], matrices[i], false);
  }

  void AddTuningRow(const std::vector<Candidate>& candidates, const std::vector<Spread>& times) {
    const auto provider = [&](size_t i) { return candidates[i].name.substr(0, candidates[i].name.find('/')); };
    size_t best = 0, best_recordable = 0, chosen = 0;  // the first is native
    for (size_t i = 0; i < times.size(); ++i) {
      if (times[i].median < times[best].median) best = i;
      if (candidates[i].graph && times[i].median < times[best_recordable].median) best_recordable = i;
      if (provider(i) == "native" && tiles_of_candidate_[i] == chosen_tile_) chosen = i;
    }
    bench_->tuning.push_back({model_.name, SkewName(case_.skew), model_.hidden_size, model_.moe_intermediate_size,
                              model_.num_experts, model_.top_k, case_.tokens, case_.touched,
                              static_cast<double>(Rows()) / case_.touched, provider(best), provider(best_recordable),
                              tiles_of_candidate_[best_recordable], chosen_tile_, times[best].median,
                              times[best_recordable].median, times[chosen].median});
  }

  Bench* const bench_;
  const Model model_;
  MoeBuffers buffers_;
  std::vector<ExpertMatrices> experts_;
  std::vector<std::unique_ptr<RoutedBatch>> batches_;
  Array<uint16_t> scratch_;
  std::vector<std::unique_ptr<CublasGrouped>> grouped_;
  std::vector<int> tiles_of_candidate_;
  Case case_ = {};
  int chosen_tile_ = 0;
  int chosen_wgmma_tile_ = 0;
};

}  // namespace

void MeasureMoe(Bench* bench) {
  bench->report.Heading("moe layer (* what the backend chooses)");
  for (const Model& model : bench->models()) {
    MoeSection section(bench, model);
    for (const int64_t tokens : TokensOf(bench->options)) {
      section.Run({tokens, Skew::kUniform});
      if (!bench->options.quick) section.Run({tokens, Skew::kZipf});
    }
  }
}

void WriteTuning(const Bench& bench) {
  std::ofstream out(bench.options.tune);
  out << "model,hidden_size,moe_intermediate_size,num_experts,top_k,tokens,routing,touched_experts,rows_per_expert,"
         "best,best_us,best_recordable,best_recordable_tile_tokens,best_recordable_us,chosen_tile_tokens,chosen_us\n";
  for (const TuningRow& r : bench.tuning) {
    out << r.model << ',' << r.hidden_size << ',' << r.moe_intermediate_size << ',' << r.num_experts << ',' << r.top_k
        << ',' << r.tokens << ',' << r.skew << ',' << r.touched_experts << ',' << r.rows_per_expert << ',' << r.best
        << ',' << r.best_us << ',' << r.best_recordable << ',' << r.best_tile_tokens << ',' << r.best_recordable_us
        << ',' << r.chosen_tile_tokens << ',' << r.chosen_us << '\n';
  }
}

}  // namespace switchyard::bench
