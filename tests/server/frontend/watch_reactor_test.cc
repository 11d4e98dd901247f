// What a watch sends before its end. The reactor is bound to no call: the test says when a write is done.
#include "server/frontend/watch_reactor.h"

#include <gtest/gtest.h>

#include <memory>

namespace switchyard {
namespace {

class CountingWatch final : public WatchReactor {
 public:
  CountingWatch() : WatchReactor(nullptr) {}
  int num_produced = 0;

 private:
  grpc::ByteBuffer Produce() override {
    ++num_produced;
    return grpc::ByteBuffer();
  }
};

class WatchReactorTest : public testing::Test {
 protected:
  WatchReactorTest() { watch_->Begin(); }
  ~WatchReactorTest() override { watch_->OnDone(); }

  const std::shared_ptr<CountingWatch> watch_ = std::make_shared<CountingWatch>();
};

TEST_F(WatchReactorTest, SeveralPokesDuringAWriteAreOneMessage) {
  watch_->Poke();
  EXPECT_EQ(watch_->num_produced, 1);
  watch_->Poke();
  watch_->Poke();
  EXPECT_EQ(watch_->num_produced, 1) << "a write is in flight";
  watch_->OnWriteDone(true);
  EXPECT_EQ(watch_->num_produced, 2);
  watch_->OnWriteDone(true);
  EXPECT_EQ(watch_->num_produced, 2);
}

// As of a server that stops just after a client began to watch its health: NOT_SERVING, then the end.
TEST_F(WatchReactorTest, TheLastNewsGoesBeforeTheEnd) {
  watch_->Poke();
  watch_->Poke();
  watch_->End(absl::UnavailableError("the server is shutting down"));
  EXPECT_EQ(watch_->num_produced, 1);
  watch_->OnWriteDone(true);
  EXPECT_EQ(watch_->num_produced, 2);
  watch_->OnWriteDone(true);
  EXPECT_TRUE(watch_->ended());
}

TEST_F(WatchReactorTest, NothingIsSentAfterTheEnd) {
  watch_->Poke();
  watch_->End(absl::UnavailableError("the server is shutting down"));
  watch_->Poke();
  watch_->OnWriteDone(true);
  watch_->Poke();
  EXPECT_EQ(watch_->num_produced, 1);
}

TEST_F(WatchReactorTest, AClientThatLeftGetsNothingMore) {
  watch_->Poke();
  watch_->Poke();
  watch_->OnCancel();
  watch_->OnWriteDone(false);
  EXPECT_EQ(watch_->num_produced, 1);
}

}  // namespace
}  // namespace switchyard
