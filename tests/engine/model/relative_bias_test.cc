// Buckets of distances as T5 numbers them, and the table of every distance that is made of them.
#include "engine/model/relative_bias.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/engine/backend/memory_reader.h"

namespace switchyard {
namespace {

// Of the public models: 32 buckets up to 128, as the reference's formula gives them.
TEST(RelativeBucketTest, BidirectionalHalvesAreAlike) {
  const std::pair<int32_t, int32_t> kBuckets[] = {{0, 0},   {-1, 1},  {-7, 7},   {-8, 8},    {-11, 8},   {-12, 9},
                                                  {-16, 10}, {-23, 11}, {-32, 12}, {-64, 14}, {-127, 15}, {-128, 15},
                                                  {-500, 15}};
  for (const auto& [distance, bucket] : kBuckets) {
    EXPECT_EQ(RelativeBucket(distance, /*bidirectional=*/true, 32, 128), bucket) << distance;
    if (distance == 0) continue;
    EXPECT_EQ(RelativeBucket(-distance, true, 32, 128), bucket + 16) << -distance;
  }
}

TEST(RelativeBucketTest, CausalDistancesHaveAllBuckets) {
  const std::pair<int32_t, int32_t> kBuckets[] = {{5, 0},    {0, 0},    {-1, 1},   {-15, 15}, {-16, 16},  {-18, 16},
                                                  {-19, 17}, {-32, 21}, {-64, 26}, {-113, 31}, {-128, 31}, {-9999, 31}};
  for (const auto& [distance, bucket] : kBuckets) {
    EXPECT_EQ(RelativeBucket(distance, /*bidirectional=*/false, 32, 128), bucket) << distance;
  }
}

// At the edge of two buckets: what the reference's float32 gives, once above and once below the real number.
TEST(RelativeBucketTest, EdgesRoundAsInTheReference) {
  for (const auto& [distance, bucket] : {std::pair{-9, 5}, {-10, 6}, {-20, 7}, {-80, 9}}) {
    EXPECT_EQ(RelativeBucket(distance, /*bidirectional=*/true, 20, 160), bucket) << distance;
  }
  for (const auto& [distance, bucket] : {std::pair{-30, 26}, {-31, 27}}) {
    EXPECT_EQ(RelativeBucket(distance, /*bidirectional=*/false, 36, 50), bucket) << distance;
  }
}

TEST(RelativeBucketTest, GrowsWithTheDistanceAndStaysBelowTheLimit) {
  for (const bool bidirectional : {false, true}) {
    int32_t before = 0;
    for (int32_t distance = 0; distance <= 300; ++distance) {
      const int32_t bucket = RelativeBucket(-distance, bidirectional, 8, 16);
      EXPECT_GE(bucket, before);
      EXPECT_LT(bucket, bidirectional ? 4 : 8);
      before = bucket;
    }
  }
}

TEST(RelativeBiasReaderTest, LooksUpEveryDistanceOfEveryHead) {
  const int32_t num_buckets = 8, num_heads = 3, limit = 16;
  Values table;
  for (int32_t i = 0; i < num_buckets * num_heads; ++i) table.push_back(i);
  const MemoryReader stored(num_buckets, num_heads, table);
  const RelativeBiasReader reader(stored, /*bidirectional=*/true, limit);
  ASSERT_EQ(reader.rows(), 1);
  ASSERT_EQ(reader.cols(), num_heads * (2 * limit + 1));
  std::vector<float> row(static_cast<size_t>(reader.cols()));
  ASSERT_TRUE(reader.ReadRows(0, 1, DType::kF32, row.data()).ok());
  for (int32_t head = 0; head < num_heads; ++head) {
    for (int32_t distance = -limit; distance <= limit; ++distance) {
      const int32_t bucket = RelativeBucket(distance, true, num_buckets, limit);
      EXPECT_EQ(row[static_cast<size_t>(head * (2 * limit + 1) + distance + limit)], bucket * num_heads + head);
    }
  }
}

}  // namespace
}  // namespace switchyard
