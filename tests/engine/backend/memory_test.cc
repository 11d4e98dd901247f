#include "engine/backend/cpu/memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <utility>

namespace switchyard::cpu {
namespace {

TEST(BufferTest, IsZeroedAndAligned) {
  for (const int64_t bytes : {0, 1, 100, 1 << 20, (3 << 20) + 5}) {
    auto buffer = Buffer::Allocate(bytes, "test");
    ASSERT_TRUE(buffer.ok()) << buffer.status();
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer->as<char>()) % 64, 0u);
    for (int64_t i = 0; i < bytes; ++i) ASSERT_EQ(buffer->as<char>()[i], 0);
  }
}

TEST(BufferTest, LargeBuffersStartAtHugePages) {
  auto buffer = Buffer::Allocate(5 << 20, "test");
  ASSERT_TRUE(buffer.ok());
  EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer->as<char>()) % (2 << 20), 0u);
}

TEST(BufferTest, MovingKeepsTheAddress) {
  auto buffer = Buffer::Allocate(2 << 20, "test");
  ASSERT_TRUE(buffer.ok());
  char* const address = buffer->as<char>();
  Buffer moved = *std::move(buffer);
  EXPECT_EQ(moved.as<char>(), address);
  moved = Buffer();
  EXPECT_EQ(moved.bytes(), 0);
}

TEST(BufferTest, SaysWhatIsNeededWhenMemoryIsShort) {
  const absl::Status status = Buffer::Allocate(int64_t{1} << 50, "the KV cache").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("the KV cache needs 1073741824 MiB, but only "));
}

TEST(AvailableMemoryTest, IsPositive) { EXPECT_GT(AvailableMemoryBytes(), 0); }

}  // namespace
}  // namespace switchyard::cpu
