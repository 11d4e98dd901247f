// Speed of the CUDA backend's kernels on the GPU of this machine, against its limits and against cuBLAS; see README.md.
//
//   switchyard_bench_gpu [--only SECTION] [--model NAME] [--quick] [--json FILE] [--check]
//   switchyard_bench_gpu --tune FILE [--model NAME] [--quick]
//   switchyard_bench_gpu --write-routing FOLDER
//
// Sections: ceilings moe dense attention small step. Exit: 0 also where there is no GPU (and says so), 1 where a result
// is wrong or a call fails, 2 for wrong arguments.
#include <chrono>
#include <cmath>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "tests/bench/gpu/bench.h"
#include "tests/bench/gpu/device.h"
#include "tests/bench/gpu/routing.h"
#include "tests/bench/gpu/tuning.h"

namespace switchyard::bench {

namespace {

struct Section {
  const char* name;
  void (*run)(Bench*);
};
constexpr Section kSections[] = {{"moe", MeasureMoe},
                                 {"dense", MeasureDense},
                                 {"attention", MeasureAttention},
                                 {"small", MeasureSmall},
                                 {"step", MeasureStep}};

int Usage(const std::string& problem) {
  std::fprintf(stderr,
               "%s\nusage: switchyard_bench_gpu [--only moe|dense|attention|small|step|ceilings] [--model NAME] "
               "[--quick] [--json FILE] [--check]\n       switchyard_bench_gpu --tune FILE [--model NAME] [--quick]\n"
               "       switchyard_bench_gpu --write-routing FOLDER\n",
               problem.c_str());
  return 2;
}

// Empty, or what is wrong.
std::string Parse(int argc, char** argv, Options* options) {
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    if (flag == "--quick") {
      options->quick = true;
    } else if (flag == "--check") {
      options->check = options->tiny = true;
    } else {
      std::string* const value = flag == "--only"            ? &options->only
                                 : flag == "--model"         ? &options->model
                                 : flag == "--json"          ? &options->json
                                 : flag == "--tune"          ? &options->tune
                                 : flag == "--write-routing" ? &options->routing
                                                             : nullptr;
      if (value == nullptr) return "unknown argument " + flag;
      if (i + 1 == argc) return flag + " needs a value";
      *value = argv[++i];
    }
  }
  bool known = options->only.empty() || options->only == "ceilings";
  for (const Section& section : kSections) known = known || options->only == section.name;
  if (!known) return "unknown section " + options->only;
  if (!options->tune.empty() && (!options->only.empty() || !options->json.empty() || options->check)) {
    return "--tune goes with --model and --quick only";
  }
  if (Models(options->model).empty()) return "unknown model " + options->model;
  return "";
}

int Measure(Bench* bench, const std::string& command) {
  const auto start = std::chrono::steady_clock::now();
  const auto elapsed = [&] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  std::printf("%s, %lld GiB\n", TheDevice().name.c_str(), static_cast<long long>(TheDevice().total_bytes >> 30));
  if (bench->options.check) CheckKernels(bench);
  if (!bench->options.tune.empty()) {
    TuneExpertGemms(bench, command);
    std::printf("\n%d wrong results, %.1f s\n", bench->num_wrong, elapsed());
    return bench->num_wrong == 0 ? 0 : 1;
  }
  const auto write_json = [&] {
    if (bench->options.json.empty()) return;
    bench->report.WriteJson(bench->options.json, TheDevice().name, bench->limits, command);
  };
  MeasureCeilings(bench);
  write_json();
  for (const Section& section : kSections) {
    if (!bench->options.only.empty() && bench->options.only != section.name) continue;
    section.run(bench);
    std::printf("-- %s done after %.1f s\n", section.name, elapsed());
    write_json();  // a later section may fail: what is measured stays
  }
  std::printf("\n%d wrong results, %.1f s\n", bench->num_wrong, elapsed());
  return bench->num_wrong == 0 ? 0 : 1;
}

int Main(int argc, char** argv) {
  Bench bench;
  const std::string problem = Parse(argc, argv, &bench.options);
  if (!problem.empty()) return Usage(problem);
  if (!bench.options.routing.empty()) {
    WriteRoutings(bench.options.routing);
    return 0;
  }
  const std::string missing = OpenDevice();
  if (!missing.empty()) {
    std::printf("no NVIDIA GPU: %s\n", missing.c_str());
    return 0;
  }
  std::string command = "switchyard_bench_gpu";
  for (int i = 1; i < argc; ++i) command += std::string(" ") + argv[i];
  return Measure(&bench, command);
}

}  // namespace
}  // namespace switchyard::bench

int main(int argc, char** argv) { return switchyard::bench::Main(argc, argv); }
