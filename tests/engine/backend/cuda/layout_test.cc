// The index mathematics of the CUDA kernels.
#include "engine/backend/cuda/layout.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "engine/backend/cuda/recorder.h"

namespace switchyard::cuda {
namespace {

TEST(LayoutTest, GateAndUpInterleaveInBlocksOfEight) {
  EXPECT_EQ(GateUpRow(0, 0), 0);
  EXPECT_EQ(GateUpRow(7, 0), 7);
  EXPECT_EQ(GateUpRow(0, 1), 8);
  EXPECT_EQ(GateUpRow(8, 0), 16);
  for (const int64_t intermediate : {1, 8, 24, 100, 1536}) {
    std::set<int64_t> rows;
    for (int64_t f = 0; f < intermediate; ++f) {
      for (const int up : {0, 1}) EXPECT_TRUE(rows.insert(GateUpRow(f, up)).second);
    }
    EXPECT_LT(*rows.rbegin(), GateUpRows(intermediate));
  }
}

TEST(LayoutTest, SwizzleIsAPermutationWithoutBankConflicts) {
  std::set<int> offsets;
  for (int row = 0; row < 16; ++row) {
    for (int unit = 0; unit < 8; ++unit) EXPECT_TRUE(offsets.insert(SwizzledOffset(row, unit)).second);
  }
  EXPECT_EQ(*offsets.rbegin(), 16 * 128 - 16);
  // The eight rows of an ldmatrix tile: eight different groups of four banks.
  for (int first = 0; first < 16; first += 8) {
    for (int unit = 0; unit < 8; ++unit) {
      std::set<int> groups;
      for (int row = first; row < first + 8; ++row) groups.insert(SwizzledOffset(row, unit) / 16 % 8);
      EXPECT_EQ(groups.size(), 8u);
    }
  }
}

std::vector<ExpertTile> MakeTiles(const std::vector<int32_t>& rows_per_expert, int tile_tokens) {
  std::vector<ExpertTile> tiles;
  int32_t row = 0;
  for (size_t e = 0; e < rows_per_expert.size(); ++e) {
    const int32_t first = static_cast<int32_t>(tiles.size());
    const int32_t count = static_cast<int32_t>(CeilDiv(rows_per_expert[e], tile_tokens));
    for (int32_t done = 0; done < rows_per_expert[e]; done += tile_tokens) {
      tiles.push_back(
          {static_cast<int32_t>(e), row + done, std::min(tile_tokens, rows_per_expert[e] - done), first, count});
    }
    row += rows_per_expert[e];
  }
  return tiles;
}

TEST(LayoutTest, WorkCoversEveryTileAndFeatureBlockOnce) {
  std::mt19937 random(1);
  for (int round = 0; round < 50; ++round) {
    std::vector<int32_t> rows(1 + random() % 20);
    for (int32_t& count : rows) count = static_cast<int32_t>(random() % 90);
    const int64_t num_out_blocks = 1 + random() % 30;
    const std::vector<ExpertTile> tiles = MakeTiles(rows, 16);
    std::set<std::pair<int64_t, int64_t>> seen;
    int32_t expert = 0;
    for (int64_t index = 0; index < static_cast<int64_t>(tiles.size()) * num_out_blocks; ++index) {
      const GemmWork work = FindGemmWork(index, num_out_blocks, [&](int64_t t) { return tiles.at(t); });
      ASSERT_LT(work.tile, static_cast<int64_t>(tiles.size()));
      ASSERT_LT(work.out_block, num_out_blocks);
      EXPECT_TRUE(seen.insert({work.tile, work.out_block}).second);
      EXPECT_GE(tiles[work.tile].expert, expert) << "experts come one after the other";
      expert = tiles[work.tile].expert;
    }
  }
}

TEST(LayoutTest, MaxExpertTilesIsTheMostThereCanBe) {
  std::mt19937 random(2);
  for (const int tile_tokens : {8, 16, 128}) {
    for (int round = 0; round < 200; ++round) {
      std::vector<int32_t> rows(1 + random() % 12);
      int64_t total = 0;
      for (int32_t& count : rows) total += count = static_cast<int32_t>(random() % 40);
      EXPECT_LE(static_cast<int64_t>(MakeTiles(rows, tile_tokens).size()),
                MaxExpertTiles(total, static_cast<int64_t>(rows.size()), tile_tokens));
    }
  }
  EXPECT_EQ(MaxExpertTiles(3, 8, 16), 3);        // three experts with one row each
  EXPECT_EQ(MaxExpertTiles(8 + 32, 8, 16), 10);  // seven with one row, one with 33
}

TEST(LayoutTest, TilesAreAsNarrowAsTheRowsOfAnExpert) {
  EXPECT_EQ(ChooseTileTokens(0, 8), 8);
  EXPECT_EQ(ChooseTileTokens(2, 8), 8);
  EXPECT_EQ(ChooseTileTokens(64, 8), 8);
  EXPECT_EQ(ChooseTileTokens(65, 8), 16);
  EXPECT_EQ(ChooseTileTokens(16384, 8), 128);
}

TEST(RecorderTest, BucketsHoldWhatTheyAreFor) {
  for (int64_t rows = 1; rows <= 256; ++rows) EXPECT_GE(RowBucket(rows), rows);
  EXPECT_EQ(RowBucket(17), 24);
  EXPECT_EQ(RowBucket(257), 0);
  EXPECT_EQ(ChunkBucket(1), 1);
  EXPECT_EQ(ChunkBucket(3), 4);
  EXPECT_EQ(ChunkBucket(4), 4);
}

}  // namespace
}  // namespace switchyard::cuda
