#include "tests/bench/gpu/tuning.h"

#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "tests/bench/gpu/device.h"
#include "tests/bench/gpu/json_text.h"
#include "tests/bench/gpu/moe_providers.h"

namespace switchyard::bench {
namespace {

std::vector<int64_t> TokensOf(const Options& options) {
  if (options.tiny) return {1, 4, 16};
  std::vector<int64_t> tokens;
  for (int64_t t = 1; t <= 8192; t *= 2) tokens.push_back(t);
  return tokens;
}

TuningCase MeasureCase(Bench* bench, MoeProviders* providers) {
  const std::vector<Candidate> candidates = providers->Providers();
  for (const Candidate& candidate : candidates) {
    providers->ErrorOf(candidate, 1);  // warms up
    bench->Check("tune " + providers->CaseName() + " " + candidate.name, providers->ErrorOf(candidate, 0));
  }
  const std::vector<Spread> times = TimeSideBySide(candidates, bench->Plan(kRoutingSets));
  TuningCase measured = {providers->tokens(), providers->skew(), providers->rows_per_expert(), {}};
  std::printf("%-42s %8.1f", providers->CaseName().c_str(), measured.rows_per_expert);
  for (size_t i = 0; i < candidates.size(); ++i) {
    measured.us[candidates[i].name] = times[i].median;
    std::printf("  %s %.2f", candidates[i].name.c_str(), times[i].median);
  }
  std::printf("\n");
  std::fflush(stdout);
  return measured;
}

std::string ToJson(const TuningCase& c) {
  std::string json = "{\"tokens\": " + Number(static_cast<double>(c.tokens)) + Field("routing", SkewName(c.skew)) +
                     Field("rows_per_expert", c.rows_per_expert);
  for (const auto& [provider, us] : c.us) json += Field(provider, us);
  return json + "}";
}

// One entry of the table.
std::string ToJson(const Model& model, const std::vector<TuningCase>& cases, const std::string& command) {
  const TunedShape shape = ChooseProviders(cases, cuda::kExpertGemmKinds);
  const Versions versions = TheVersions();
  std::string json = "{\"device\": " + Quoted(TheDevice().name) +
                     Field("hidden", static_cast<double>(model.hidden_size)) +
                     Field("intermediate", static_cast<double>(model.moe_intermediate_size)) +
                     Field("experts", model.num_experts) + Field("top_k", model.top_k) + Field("dtype", "bfloat16") +
                     Field("always", shape.always) + ",\n  \"fastest\": [";
  for (size_t i = 0; i < shape.fastest.size(); ++i) {
    json += std::string(i == 0 ? "" : ", ") + "{\"max_tokens\": " + std::to_string(shape.fastest[i].max_tokens) +
            Field("provider", shape.fastest[i].provider) + "}";
  }
  json += "],\n  \"measured\": {\"model\": " + Quoted(model.name) + Field("date", Date()) + Field("command", command) +
          Field("cuda_driver", versions.driver) + Field("cuda_runtime", versions.runtime) +
          Field("cublas", versions.cublas) + ", \"microseconds\": [";
  for (size_t i = 0; i < cases.size(); ++i) json += (i == 0 ? "\n   " : ",\n   ") + ToJson(cases[i]);
  return json + "]}}";
}

}  // namespace

void TuneExpertGemms(Bench* bench, const std::string& command) {
  std::printf("%-42s %8s  microseconds of the experts' products\n", "experts of one layer", "rows/exp");
  std::string entries;
  for (const Model& model : bench->models()) {
    const std::vector<int64_t> tokens = TokensOf(bench->options);
    MoeProviders providers(model, tokens.back());
    std::vector<TuningCase> cases;
    for (const int64_t t : tokens) {
      for (const Skew skew : {Skew::kUniform, Skew::kZipf}) {
        providers.Use(t, skew, {});
        cases.push_back(MeasureCase(bench, &providers));
      }
    }
    entries += (entries.empty() ? "\n " : ",\n ") + ToJson(model, cases, command);
  }
  if (bench->num_wrong > 0) {
    std::printf("%s is not written: results are wrong\n", bench->options.tune.c_str());
    return;
  }
  std::ofstream out(bench->options.tune);
  out << "{\"format\": \"switchyard expert gemm table 1\",\n \"entries\": [" << entries << "\n]}\n";
  out.flush();
  if (out) return;
  std::fprintf(stderr, "cannot write %s\n", bench->options.tune.c_str());
  std::exit(1);
}

}  // namespace switchyard::bench
