// What the sections share. Each section measures, checks what it measured, and reports.
#ifndef SWITCHYARD_TESTS_BENCH_GPU_BENCH_H_
#define SWITCHYARD_TESTS_BENCH_GPU_BENCH_H_

#include <cstdint>
#include <string>
#include <vector>

#include "tests/bench/gpu/models.h"
#include "tests/bench/gpu/report.h"

namespace switchyard::bench {

struct Options {
  std::string only;     // section; empty: all
  std::string model;    // part of a name; empty: all
  std::string json;
  std::string tune;     // file for the table of providers; only this is measured then
  std::string routing;  // folder for the drawn expert ids
  bool quick = false;
  bool check = false;
  bool tiny = false;    // sizes that an emulated device manages
};

struct Bench {
  Options options;
  Limits limits;
  Report report{true};
  int num_wrong = 0;

  std::vector<Model> models() const {
    if (options.tiny) return {TinyModel()};
    return Models(options.model);
  }
  // Seconds of measuring per candidate.
  double budget() const { return options.tiny ? 1e-6 : options.quick ? 0.01 : 0.025; }
  TimingPlan Plan(int sets) const {
    return {sets, budget(), options.tiny ? sets : sets > 20 ? sets : 20};
  }
  // Counts and prints a result whose error is too large. `what` names the case.
  void Check(const std::string& what, double error, double limit = 1e-2);
};

void MeasureCeilings(Bench* bench);
void MeasureMoe(Bench* bench);
void MeasureDense(Bench* bench);
void MeasureAttention(Bench* bench);
void MeasureSmall(Bench* bench);
void MeasureStep(Bench* bench);

// Every kernel on small shapes against plain host loops.
void CheckKernels(Bench* bench);

}  // namespace switchyard::bench

#endif  // SWITCHYARD_TESTS_BENCH_GPU_BENCH_H_
