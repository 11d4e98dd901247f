#include "server/scheduler/request_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include "tests/server/scheduler/recording_sink.h"

namespace switchyard {
namespace {

using std::chrono::steady_clock;

std::unique_ptr<Request> RequestOf(uint64_t id, size_t num_tokens) {
  return MakeRequest(id, std::vector<int32_t>(num_tokens, 1), 1, std::make_shared<RecordingSink>());
}

TEST(RequestQueueTest, RefusesWhenSoManyWait) {
  RequestQueue queue(2, 100);
  EXPECT_TRUE(queue.Push(RequestOf(1, 1)).ok());
  EXPECT_TRUE(queue.Push(RequestOf(2, 1)).ok());
  const absl::Status refused = queue.Push(RequestOf(3, 1));
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(refused.message(), "the request queue is full: 2 requests wait and 1 more exceed the limit of 2");
}

TEST(RequestQueueTest, RefusesWhenSoManyTokensWait) {
  RequestQueue queue(10, 100);
  EXPECT_TRUE(queue.Push(RequestOf(1, 60)).ok());
  const absl::Status refused = queue.Push(RequestOf(2, 41));
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(refused.message(), "the request queue is full: 60 tokens wait and 41 more exceed the limit of 100");
  EXPECT_TRUE(queue.Push(RequestOf(3, 40)).ok());
}

TEST(RequestQueueTest, OneRequestAlwaysFits) {
  RequestQueue queue(1, 10);
  EXPECT_TRUE(queue.Push(RequestOf(1, 1000)).ok());
}

std::vector<std::unique_ptr<Request>> GroupOf(int num_requests, size_t num_tokens) {
  std::vector<std::unique_ptr<Request>> group;
  for (int i = 0; i < num_requests; ++i) group.push_back(RequestOf(100 + static_cast<uint64_t>(i), num_tokens));
  return group;
}

TEST(RequestQueueTest, TakesAGroupWholeOrNotAtAll) {
  RequestQueue queue(4, 100);
  ASSERT_TRUE(queue.Push(GroupOf(2, 10)).ok());
  EXPECT_EQ(queue.Push(GroupOf(3, 1)).message(),
            "the request queue is full: 2 requests wait and 3 more exceed the limit of 4");
  EXPECT_EQ(queue.Push(GroupOf(2, 41)).message(),
            "the request queue is full: 20 tokens wait and 82 more exceed the limit of 100");
  EXPECT_EQ(queue.TakeAll().requests.size(), 2u) << "nothing of what was refused";
}

TEST(RequestQueueTest, OneGroupAlwaysFits) {
  RequestQueue queue(4, 100);
  EXPECT_TRUE(queue.Push(GroupOf(4, 1000)).ok());
}

TEST(RequestQueueTest, WhatTheSchedulerHoldsCountsAgainstTheBound) {
  RequestQueue queue(2, 100);
  ASSERT_TRUE(queue.Push(RequestOf(1, 1)).ok());
  ASSERT_TRUE(queue.Push(RequestOf(2, 1)).ok());
  EXPECT_EQ(queue.TakeAll().requests.size(), 2u);
  EXPECT_FALSE(queue.Push(RequestOf(3, 1)).ok()) << "taken, but still waiting";
  queue.SetWaiting(1, 1);
  EXPECT_TRUE(queue.Push(RequestOf(4, 1)).ok());
  EXPECT_FALSE(queue.Push(RequestOf(5, 1)).ok());
}

TEST(RequestQueueTest, TakesInOrderAndOnce) {
  RequestQueue queue(10, 100);
  for (uint64_t id = 1; id <= 3; ++id) ASSERT_TRUE(queue.Push(RequestOf(id, 1)).ok());
  queue.Cancel(2);
  const RequestQueue::Batch batch = queue.TakeAll();
  ASSERT_EQ(batch.requests.size(), 3u);
  for (uint64_t id = 1; id <= 3; ++id) EXPECT_EQ(batch.requests[id - 1]->id, id);
  EXPECT_THAT(batch.cancelled, testing::ElementsAre(2));
  const RequestQueue::Batch empty = queue.TakeAll();
  EXPECT_TRUE(empty.requests.empty());
  EXPECT_TRUE(empty.cancelled.empty());
}

TEST(RequestQueueTest, AfterCloseRefusesRequestsButTakesCancels) {
  RequestQueue queue(10, 100);
  ASSERT_TRUE(queue.Push(RequestOf(1, 1)).ok());
  queue.Close();
  queue.Close();
  EXPECT_EQ(queue.Push(RequestOf(2, 1)).code(), absl::StatusCode::kUnavailable);
  queue.Cancel(1);
  const RequestQueue::Batch batch = queue.TakeAll();
  EXPECT_EQ(batch.requests.size(), 1u);
  EXPECT_EQ(batch.cancelled.size(), 1u);
}

TEST(RequestQueueTest, WaitEndsAtItsDeadline) {
  RequestQueue queue(1, 1);
  const auto start = steady_clock::now();
  queue.WaitUntil(start + std::chrono::milliseconds(20));
  EXPECT_GE(steady_clock::now() - start, std::chrono::milliseconds(20));
}

// Each of the three ways to wake the consumer, before it sleeps and while it sleeps. Without the wake-up the wait
// would last for its minute.
TEST(RequestQueueTest, WaitEndsForArrivalsCancelsAndWakes) {
  const auto actions = std::vector<void (*)(RequestQueue&)>{
      [](RequestQueue& queue) { ASSERT_TRUE(queue.Push(RequestOf(1, 1)).ok()); },
      [](RequestQueue& queue) { queue.Cancel(1); },
      [](RequestQueue& queue) { queue.Wake(); },
  };
  for (const auto& action : actions) {
    for (const int delay_milliseconds : {0, 20}) {
      RequestQueue queue(1, 1);
      const auto start = steady_clock::now();
      std::thread producer;
      if (delay_milliseconds == 0) {
        action(queue);
      } else {
        producer = std::thread([&] {
          std::this_thread::sleep_for(std::chrono::milliseconds(delay_milliseconds));
          action(queue);
        });
      }
      queue.WaitUntil(start + std::chrono::seconds(60));
      EXPECT_LT(steady_clock::now() - start, std::chrono::seconds(30));
      if (producer.joinable()) producer.join();
    }
  }
}

TEST(RequestQueueTest, LosesAndDoublesNothingBetweenManyProducersAndOneConsumer) {
  constexpr int kProducers = 4, kEach = 2000;
  RequestQueue queue(64, 1 << 20);
  std::vector<std::thread> producers;
  for (int p = 0; p < kProducers; ++p) {
    producers.emplace_back([&queue, p] {
      for (int i = 0; i < kEach;) {
        if (queue.Push(RequestOf(static_cast<uint64_t>(p * kEach + i), 1)).ok()) {
          ++i;
        } else {
          std::this_thread::yield();
        }
      }
    });
  }
  std::vector<int> seen(kProducers * kEach, 0);
  for (int taken = 0; taken < kProducers * kEach;) {
    queue.WaitUntil(steady_clock::now() + std::chrono::seconds(5));
    const RequestQueue::Batch batch = queue.TakeAll();
    ASSERT_LE(batch.requests.size(), 64u);
    for (const auto& request : batch.requests) ++seen[request->id];
    taken += static_cast<int>(batch.requests.size());
    queue.SetWaiting(0, 0);
  }
  for (std::thread& producer : producers) producer.join();
  EXPECT_EQ(std::count(seen.begin(), seen.end(), 1), kProducers * kEach);
}

}  // namespace
}  // namespace switchyard
