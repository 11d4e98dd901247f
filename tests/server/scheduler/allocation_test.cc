// Steady decoding takes no memory: everything that a step needs was taken when its sequences were admitted.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

#include "server/scheduler/scheduler.h"
#include "tests/server/scheduler/recording_sink.h"
#include "tests/server/scheduler/scheduler_driver.h"

namespace {
std::atomic<int64_t> num_allocations{0};
}

// Not inlined, or g++ sees a free of what new returned and warns.
[[gnu::noinline]] void* operator new(size_t size) {
  num_allocations.fetch_add(1, std::memory_order_relaxed);
  void* memory = std::malloc(size);
  return memory != nullptr ? memory : throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace switchyard {
namespace {

class CountingSink : public TokenSink {
 public:
  SinkVerdict OnToken(const SampledToken&, bool) override { return ++num_tokens, SinkVerdict::kContinue; }
  void OnFinished(const FinishedEvent&) override {}
  int num_tokens = 0;
};

// The parameter: how many steps are in flight.
class AllocationTest : public testing::TestWithParam<int> {
 protected:
  AllocationTest() : scheduler_(Options()) {
    for (uint64_t id = 1; id <= 4; ++id) {
      scheduler_.Add(MakeRequest(id, Prompt(3, static_cast<int32_t>(id)), 60, sink_), now_);
      SampledToken token;
      token.sequence_id = id;
      output_.tokens.push_back(token);
    }
  }

  static SchedulerOptions Options() {
    SchedulerOptions options = SmallOptions();
    options.enable_prefix_caching = true;  // blocks are published on the way
    return options;
  }

  void Step() {
    if (GetParam() == 2) scheduler_.PlanAhead(now_);
    scheduler_.Apply(output_, now_);
    if (GetParam() == 1) scheduler_.Plan(now_);
  }

  const TimePoint now_{std::chrono::seconds(1000)};
  std::shared_ptr<CountingSink> sink_ = std::make_shared<CountingSink>();
  StepOutput output_;
  Scheduler scheduler_;
};

INSTANTIATE_TEST_SUITE_P(StepsInFlight, AllocationTest, testing::Values(1, 2));

TEST_P(AllocationTest, SteadyDecodingTakesNoMemory) {
  scheduler_.Plan(now_);
  Step();
  const int64_t before = num_allocations.load();
  for (int i = 0; i < 50; ++i) Step();
  EXPECT_EQ(num_allocations.load(), before);
  EXPECT_EQ(sink_->num_tokens, 4 * 51);
}

}  // namespace
}  // namespace switchyard
