#include "engine/base/worker_pool.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <ctime>
#include <fstream>
#include <numeric>

namespace switchyard {
namespace {

TEST(WorkerPoolTest, RunsTheBodyOncePerThread) {
  for (const int num_threads : {1, 2, 5}) {
    const std::unique_ptr<WorkerPool> owner = *WorkerPool::Create(num_threads);
  WorkerPool& pool = *owner;
    std::vector<int> calls(num_threads);
    for (int round = 0; round < 1000; ++round) pool.Run([&](int thread) { ++calls[thread]; });
    for (const int count : calls) EXPECT_EQ(count, 1000);
  }
}

TEST(WorkerPoolTest, BarrierSeparatesPhases) {
  constexpr int kThreads = 4;
  const std::unique_ptr<WorkerPool> owner = *WorkerPool::Create(kThreads);
  WorkerPool& pool = *owner;
  std::vector<int> written(kThreads);
  std::vector<int> sums(kThreads);
  for (int round = 1; round <= 200; ++round) {
    pool.Run([&](int thread) {
      written[thread] = round;
      pool.Barrier();
      sums[thread] = std::accumulate(written.begin(), written.end(), 0);
      pool.Barrier();
      written[thread] = 0;
    });
    for (const int sum : sums) ASSERT_EQ(sum, kThreads * round);
  }
}

TEST(WorkerPoolTest, ParallelForVisitsEachIndexOnce) {
  const std::unique_ptr<WorkerPool> owner = *WorkerPool::Create(3);
  WorkerPool& pool = *owner;
  for (const int64_t count : {0, 1, 2, 3, 1000}) {
    std::vector<int> visits(count);
    std::vector<int64_t> of_thread(3);
    pool.ParallelFor(count, [&](int thread, int64_t i) {
      ++visits[i];
      ++of_thread[thread];
    });
    for (const int visit : visits) EXPECT_EQ(visit, 1);
    EXPECT_EQ(std::accumulate(of_thread.begin(), of_thread.end(), int64_t{0}), count);
  }
}

TEST(WorkerPoolTest, PartsCoverTheRangeInOrder) {
  for (const int64_t count : {0, 1, 5, 64, 1001}) {
    int64_t next = 0;
    for (int thread = 0; thread < 7; ++thread) {
      const auto [first, last] = WorkerPool::Part(count, thread, 7);
      EXPECT_EQ(first, next);
      EXPECT_LE(last - first, (count + 6) / 7);
      next = last;
    }
    EXPECT_EQ(next, count);
  }
}

TEST(WorkerPoolTest, SleepingWorkersWakeUp) {
  const std::unique_ptr<WorkerPool> owner = *WorkerPool::Create(3);
  WorkerPool& pool = *owner;
  std::atomic<int> calls{0};
  for (int round = 0; round < 20; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));  // longer than workers spin
    pool.Run([&](int) { calls.fetch_add(1); });
  }
  EXPECT_EQ(calls.load(), 60);
}

TEST(WorkerPoolTest, ThreadsThatCannotStartAreAnError) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers do not run with little address space";
#endif
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_AS, &before), 0);
  int64_t pages = 0;
  ASSERT_TRUE(std::ifstream("/proc/self/statm") >> pages);
  rlimit little = before;
  little.rlim_cur = static_cast<rlim_t>(pages * sysconf(_SC_PAGESIZE) + (256 << 20));  // stacks take megabytes
  ASSERT_EQ(setrlimit(RLIMIT_AS, &little), 0);
  const absl::Status status = WorkerPool::Create(1024).status();
  ASSERT_EQ(setrlimit(RLIMIT_AS, &before), 0);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_NE(status.message().find("num_threads is 1024, but only "), absl::string_view::npos) << status;
}

TEST(WorkerPoolTest, IdleWorkersBurnNoCpu) {
  const std::unique_ptr<WorkerPool> owner = *WorkerPool::Create(4);
  WorkerPool& pool = *owner;
  pool.Run([](int) {});
  // They spin before they sleep, and on a busy machine get to it late.
  double seconds = 1.0;
  for (int i = 0; i < 20 && seconds >= 0.02; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    const std::clock_t before = std::clock();
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    seconds = static_cast<double>(std::clock() - before) / CLOCKS_PER_SEC;
  }
  EXPECT_LT(seconds, 0.02);
}

}  // namespace
}  // namespace switchyard
