#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/backend/backend.h"
#include "engine/backend/cpu/isa.h"

namespace switchyard {
namespace {

using testing::HasSubstr;

TEST(FactoryTest, AutoIsTheCpuWithItsBestInstructionSet) {
  auto backend = CreateBackend({});
  ASSERT_TRUE(backend.ok()) << backend.status();
  EXPECT_THAT(backend->backend->description(), HasSubstr(cpu::IsaName(cpu::AvailableIsas().back())));
}

TEST(FactoryTest, EveryAvailableInstructionSetCanBeForced) {
  for (const cpu::Isa isa : cpu::AvailableIsas()) {
    BackendOptions options;
    options.cpu_isa = cpu::IsaName(isa);
    options.num_threads = 2;
    auto backend = CreateBackend(options);
    ASSERT_TRUE(backend.ok()) << backend.status();
    EXPECT_EQ(backend->backend->description(), "cpu (" + options.cpu_isa + ", 2 threads)");
  }
}

TEST(FactoryTest, CudaIsAFailedPreconditionWithoutIt) {
  BackendOptions options;
  options.device = "cuda";
  EXPECT_EQ(CreateBackend(options).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST(FactoryTest, UnknownNamesAreInvalid) {
  BackendOptions options;
  options.device = "abacus";
  EXPECT_EQ(CreateBackend(options).status().code(), absl::StatusCode::kInvalidArgument);
  options.device = "cpu";
  options.cpu_isa = "sse9";
  EXPECT_EQ(CreateBackend(options).status().code(), absl::StatusCode::kInvalidArgument);
  options.cpu_isa = "auto";
  options.num_threads = -1;
  EXPECT_EQ(CreateBackend(options).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(FactoryTest, MissingInstructionSetsAreAFailedPrecondition) {
  for (const char* name : {"avx2", "avx512", "avx512_bf16", "amx"}) {
    bool available = false;
    for (const cpu::Isa isa : cpu::AvailableIsas()) available |= std::string(cpu::IsaName(isa)) == name;
    if (available) continue;
    BackendOptions options;
    options.cpu_isa = name;
    EXPECT_EQ(CreateBackend(options).status().code(), absl::StatusCode::kFailedPrecondition) << name;
  }
}

}  // namespace
}  // namespace switchyard
