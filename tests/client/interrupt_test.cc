#include "client/commands/interrupt.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <future>

namespace switchyard {
namespace {

// Nothing here may start gRPC: its threads would not have the signals blocked.

TEST(InterruptTest, FirstSignalRunsTheAction) {
  Interrupt interrupt;
  std::promise<void> ran;
  const InterruptScope scope(&interrupt, [&] { ran.set_value(); });
  EXPECT_FALSE(interrupt.happened());
  kill(getpid(), SIGINT);
  EXPECT_EQ(ran.get_future().wait_for(std::chrono::seconds(30)), std::future_status::ready);
  EXPECT_TRUE(interrupt.happened());
}

TEST(InterruptTest, EndsWithoutASignal) {
  Interrupt interrupt;
  {
    const InterruptScope scope(&interrupt, [] { ADD_FAILURE() << "there was no signal"; });
  }
  const InterruptScope none(nullptr, [] {});
}

TEST(InterruptDeathTest, SignalWithoutActionExits) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(
      {
        Interrupt interrupt;
        kill(getpid(), SIGTERM);
        pause();
      },
      testing::ExitedWithCode(130), "");
}

TEST(InterruptDeathTest, SecondSignalExits) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(
      {
        Interrupt interrupt;
        std::promise<void> ran;
        const InterruptScope scope(&interrupt, [&] { ran.set_value(); });
        kill(getpid(), SIGINT);
        ran.get_future().wait();
        kill(getpid(), SIGINT);
        pause();
      },
      testing::ExitedWithCode(130), "");
}

}  // namespace
}  // namespace switchyard
