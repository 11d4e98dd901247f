#include "tests/bench/gpu/bench.h"

#include <cstdio>

namespace switchyard::bench {

void Bench::Check(const std::string& what, double error, double limit) {
  if (error < limit) {
    if (options.check) std::printf("ok     %-70s %.2e\n", what.c_str(), error);
    return;
  }
  ++num_wrong;
  std::printf("WRONG  %-70s %.2e, at most %.0e\n", what.c_str(), error, limit);
}

}  // namespace switchyard::bench
