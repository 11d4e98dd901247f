// Every unit is loaded once, by workers that stay in a page of their own, until one fails.
#include "engine/backend/cpu/load_units.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

namespace switchyard::cpu {
namespace {

constexpr int64_t kStagingBytes = 64;

std::unique_ptr<Context> MakeContext(int num_threads) {
  auto pool = WorkerPool::Create(num_threads);
  EXPECT_TRUE(pool.ok()) << pool.status();
  return std::make_unique<Context>(*std::move(pool), KernelsFor(Isa::kScalar));
}

// The worker of each unit, known by its staging memory.
std::vector<const char*> LoadAll(Context& context, int64_t count, int64_t run) {
  std::vector<const char*> workers(static_cast<size_t>(count), nullptr);
  int64_t nonfinite = 5;
  const absl::Status status =
      LoadUnits(context, count, run, kStagingBytes, &nonfinite, [&](int64_t i, char* staging, int64_t* num_nonfinite) {
        EXPECT_EQ(workers[static_cast<size_t>(i)], nullptr) << "unit " << i;
        workers[static_cast<size_t>(i)] = staging;
        *num_nonfinite += i;
        return absl::OkStatus();
      });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(nonfinite, 5 + count * (count - 1) / 2);
  return workers;
}

TEST(LoadUnitsTest, LoadsEachUnitOnce) {
  for (const int num_threads : {1, 2, 3}) {
    const auto context = MakeContext(num_threads);
    for (const int64_t count : {0, 1, 2, 7, 64, 1000}) {
      for (const int64_t run : {0, 1, 16, 5000}) {
        for (const char* worker : LoadAll(*context, count, run)) EXPECT_NE(worker, nullptr) << count << ", " << run;
      }
    }
  }
}

TEST(LoadUnitsTest, AWorkerTakesARun) {
  constexpr int64_t kRun = 16;
  const auto context = MakeContext(2);
  const std::vector<const char*> workers = LoadAll(*context, 100 * kRun + 3, kRun);
  for (size_t i = 0; i < workers.size(); ++i) EXPECT_EQ(workers[i], workers[i / kRun * kRun]) << "unit " << i;
}

TEST(LoadUnitsTest, ARunLeavesUnitsForTheOthers) {
  constexpr int kThreads = 4;
  const auto context = MakeContext(kThreads);
  std::atomic<int> started{0};
  int64_t nonfinite = 0;
  // Ends only when each worker has a unit.
  const absl::Status status =
      LoadUnits(*context, kThreads, 1000, kStagingBytes, &nonfinite, [&](int64_t, char*, int64_t*) {
        started.fetch_add(1);
        while (started.load() < kThreads) std::this_thread::yield();
        return absl::OkStatus();
      });
  EXPECT_TRUE(status.ok()) << status;
}

TEST(LoadUnitsTest, StopsAtTheFirstError) {
  const auto context = MakeContext(1);
  int64_t nonfinite = 0, last = -1;
  const absl::Status status =
      LoadUnits(*context, 100, 8, kStagingBytes, &nonfinite, [&](int64_t i, char*, int64_t*) -> absl::Status {
        last = i;
        return i == 10 ? absl::DataLossError("unit 10") : absl::OkStatus();
      });
  EXPECT_EQ(status, absl::DataLossError("unit 10"));
  EXPECT_EQ(last, 10);
}

TEST(UnitsPerHugePageTest, FillAPage) {
  EXPECT_EQ(UnitsPerHugePage(128 << 10), 16);
  EXPECT_EQ(UnitsPerHugePage(kHugePage), 1);
  EXPECT_EQ(UnitsPerHugePage(kHugePage + 1), 1);
  EXPECT_EQ(UnitsPerHugePage(kHugePage - 1), 2);
  EXPECT_EQ(UnitsPerHugePage(0), kHugePage);
}

}  // namespace
}  // namespace switchyard::cpu
