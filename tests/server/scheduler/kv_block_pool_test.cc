#include "server/scheduler/kv_block_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <map>
#include <random>
#include <set>
#include <utility>
#include <vector>

namespace switchyard {
namespace {

constexpr auto kNoContent = KvBlockPool::kNoContent;
constexpr auto kNoBlock = KvBlockPool::kNoBlock;

TEST(KvBlockPoolTest, GivesEveryBlockOnce) {
  KvBlockPool pool(4, 2);
  std::set<int32_t> blocks;
  while (pool.num_available() > 0) blocks.insert(pool.Allocate());
  EXPECT_EQ(blocks, (std::set<int32_t>{0, 1, 2, 3}));
}

TEST(KvBlockPoolTest, ABlockIsAvailableAgainOnlyAfterItsLastHolder) {
  KvBlockPool pool(1, 2);
  const int32_t block = pool.Allocate();
  pool.Ref(block);
  pool.Unref(block);
  EXPECT_EQ(pool.num_available(), 0);
  pool.Unref(block);
  EXPECT_EQ(pool.num_available(), 1);
}

TEST(KvBlockPoolTest, FindsAPublishedPrefixAndOnlyThatPrefix) {
  KvBlockPool pool(4, 2);
  const std::array<int32_t, 2> ab = {1, 2}, cd = {3, 4};
  const int32_t first = pool.Allocate();
  const int32_t second = pool.Allocate();
  const auto content = pool.Publish(first, kNoContent, ab);
  pool.Publish(second, content, cd);
  EXPECT_EQ(pool.Find(kNoContent, ab), first);
  EXPECT_EQ(pool.Find(content, cd), second);
  EXPECT_EQ(pool.Find(kNoContent, cd), kNoBlock) << "same tokens, other parent";
  EXPECT_EQ(pool.Find(content, ab), kNoBlock);
}

TEST(KvBlockPoolTest, ReleasedContentIsFoundUntilItsBlockIsNeeded) {
  KvBlockPool pool(2, 1);
  const std::array<int32_t, 1> a = {1};
  const int32_t block = pool.Allocate();
  pool.Publish(block, kNoContent, a);
  pool.Unref(block);
  EXPECT_EQ(pool.num_cached(), 1);
  EXPECT_NE(pool.Allocate(), block) << "blocks without content go first";
  EXPECT_EQ(pool.Find(kNoContent, a), block);
  EXPECT_EQ(pool.Allocate(), block);
  EXPECT_EQ(pool.Find(kNoContent, a), kNoBlock);
}

TEST(KvBlockPoolTest, EvictsTheContentReleasedLongestAgo) {
  KvBlockPool pool(3, 1);
  std::array<int32_t, 3> blocks;
  for (int32_t i = 0; i < 3; ++i) {
    blocks[i] = pool.Allocate();
    pool.Publish(blocks[i], kNoContent, std::array<int32_t, 1>{i});
  }
  for (const int i : {1, 0, 2}) pool.Unref(blocks[i]);
  pool.Ref(blocks[1]);  // used again: now the youngest
  pool.Unref(blocks[1]);
  EXPECT_EQ(pool.Allocate(), blocks[0]);
  EXPECT_EQ(pool.Allocate(), blocks[2]);
  EXPECT_EQ(pool.Allocate(), blocks[1]);
}

TEST(KvBlockPoolTest, ARevivedBlockIsNotAllocated) {
  KvBlockPool pool(2, 1);
  const int32_t block = pool.Allocate();
  pool.Publish(block, kNoContent, std::array<int32_t, 1>{7});
  pool.Unref(block);
  pool.Ref(block);
  EXPECT_EQ(pool.num_cached(), 0);
  EXPECT_NE(pool.Allocate(), block);
  EXPECT_EQ(pool.num_available(), 0);
}

TEST(KvBlockPoolTest, AnEqualBlockSharesTheContentIdOfTheFirst) {
  KvBlockPool pool(2, 1);
  const std::array<int32_t, 1> a = {1};
  const int32_t first = pool.Allocate();
  const int32_t second = pool.Allocate();
  const auto content = pool.Publish(first, kNoContent, a);
  EXPECT_EQ(pool.Publish(second, kNoContent, a), content);
  EXPECT_EQ(pool.content(second), kNoContent);
  EXPECT_EQ(pool.Find(kNoContent, a), first);
}

TEST(KvBlockPoolTest, AnEvictedParentOrphansItsChildrenForGood) {
  KvBlockPool pool(2, 1);
  const std::array<int32_t, 1> a = {1}, b = {2};
  const int32_t parent = pool.Allocate();
  const int32_t child = pool.Allocate();
  const auto old_content = pool.Publish(parent, kNoContent, a);
  pool.Publish(child, old_content, b);
  pool.Unref(parent);
  const int32_t again = pool.Allocate();  // evicts the parent
  const auto new_content = pool.Publish(again, kNoContent, a);
  EXPECT_NE(new_content, old_content);
  EXPECT_EQ(pool.Find(new_content, b), kNoBlock);
}

// Against a model with std::map, over random operations: the counts are exact and nothing is found that is not there.
TEST(KvBlockPoolTest, BehavesLikeAMapUnderRandomUse) {
  std::mt19937 random(1);
  KvBlockPool pool(16, 1);
  std::vector<int32_t> held;                                                // one entry per reference
  std::map<std::pair<KvBlockPool::ContentId, int32_t>, int32_t> published;  // (parent, token) -> block
  for (int i = 0; i < 5'000; ++i) {
    const int32_t token = static_cast<int32_t>(random() % 6);
    const KvBlockPool::ContentId parent = random() % 4;
    const std::array<int32_t, 1> tokens = {token};
    const int action = static_cast<int>(random() % 3);
    if (action == 0 && pool.num_available() > 0) {
      const int32_t block = pool.Allocate();
      std::erase_if(published, [&](const auto& entry) { return entry.second == block; });
      pool.Publish(block, parent, tokens);
      const bool is_first = pool.content(block) != kNoContent;
      ASSERT_EQ(is_first, !published.contains({parent, token}));
      published.emplace(std::pair(parent, token), block);
      held.push_back(block);
    } else if (action == 1 && !held.empty()) {
      std::swap(held[random() % held.size()], held.back());
      pool.Unref(held.back());
      held.pop_back();
    } else if (const int32_t block = pool.Find(parent, tokens); block != kNoBlock) {
      pool.Ref(block);
      held.push_back(block);
    }
    const auto expected = published.find({parent, token});
    ASSERT_EQ(pool.Find(parent, tokens), expected == published.end() ? kNoBlock : expected->second);
    const std::set<int32_t> distinct(held.begin(), held.end());
    ASSERT_EQ(pool.num_available(), 16 - static_cast<int32_t>(distinct.size()));
    for (int32_t block = 0; block < 16; ++block) {
      ASSERT_EQ(pool.ref_count(block), std::count(held.begin(), held.end(), block));
    }
  }
}

}  // namespace
}  // namespace switchyard
