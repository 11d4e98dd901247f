#include "engine/backend/cpu/worker_pool.h"

#include <gtest/gtest.h>

#include <chrono>
#include <ctime>
#include <numeric>

namespace switchyard::cpu {
namespace {

TEST(WorkerPoolTest, RunsTheBodyOncePerThread) {
  for (const int num_threads : {1, 2, 5}) {
    WorkerPool pool(num_threads);
    std::vector<int> calls(num_threads);
    for (int round = 0; round < 1000; ++round) pool.Run([&](int thread) { ++calls[thread]; });
    for (const int count : calls) EXPECT_EQ(count, 1000);
  }
}

TEST(WorkerPoolTest, BarrierSeparatesPhases) {
  constexpr int kThreads = 4;
  WorkerPool pool(kThreads);
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
  WorkerPool pool(3);
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
  WorkerPool pool(3);
  std::atomic<int> calls{0};
  for (int round = 0; round < 20; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));  // longer than workers spin
    pool.Run([&](int) { calls.fetch_add(1); });
  }
  EXPECT_EQ(calls.load(), 60);
}

TEST(WorkerPoolTest, IdleWorkersBurnNoCpu) {
  WorkerPool pool(4);
  pool.Run([](int) {});
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  const std::clock_t before = std::clock();
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  const double seconds = static_cast<double>(std::clock() - before) / CLOCKS_PER_SEC;
  EXPECT_LT(seconds, 0.02);
}

}  // namespace
}  // namespace switchyard::cpu
