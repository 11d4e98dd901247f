#include "engine/base/cgroup.h"

#include <gtest/gtest.h>

#include "tests/support/temp_folder.h"

namespace switchyard {
namespace {

using switchyard::testing::TempFolder;

TEST(CgroupTest, NothingToReadIsNoLimit) {
  TempFolder root;
  EXPECT_FALSE(ReadCgroupLimits(root.path()).available_memory_bytes.has_value());
  EXPECT_FALSE(ReadCgroupLimits(root.path()).num_cores.has_value());
  root.Write("proc/self/cgroup", "0::/a/b\nnonsense\n4:cpu\n");
  root.Write("sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
  root.Write("sys/fs/cgroup/a/b/memory.max", "max\n");
  EXPECT_FALSE(ReadCgroupLimits(root.path()).available_memory_bytes.has_value());
  EXPECT_FALSE(ReadCgroupLimits(root.path()).num_cores.has_value());
}

TEST(CgroupTest, Version2TakesTheTightestGroupOnThePath) {
  TempFolder root;
  root.Write("proc/self/cgroup", "0::/pod/server\n");
  root.Write("sys/fs/cgroup/pod/server/memory.max", "1000000\n");
  root.Write("sys/fs/cgroup/pod/server/memory.current", "300000\n");
  root.Write("sys/fs/cgroup/pod/server/memory.stat", "anon 5\ninactive_file 200000\n");
  root.Write("sys/fs/cgroup/pod/server/cpu.max", "400000 100000\n");
  EXPECT_EQ(ReadCgroupLimits(root.path()).available_memory_bytes, 900000);
  EXPECT_EQ(ReadCgroupLimits(root.path()).num_cores, 4.0);
  root.Write("sys/fs/cgroup/pod/memory.max", "700000\n");
  root.Write("sys/fs/cgroup/pod/memory.current", "650000\n");
  root.Write("sys/fs/cgroup/pod/cpu.max", "150000 100000\n");
  EXPECT_EQ(ReadCgroupLimits(root.path()).available_memory_bytes, 50000);
  EXPECT_EQ(ReadCgroupLimits(root.path()).num_cores, 1.5);
}

// Inside a container the group's path is that of the host, and its own limits are at the root of the mount.
TEST(CgroupTest, TheRootCountsWhereThePathIsUnknown) {
  TempFolder root;
  root.Write("proc/self/cgroup", "0::/kubepods/burstable/1234\n");
  root.Write("sys/fs/cgroup/memory.max", "100\n");
  root.Write("sys/fs/cgroup/memory.current", "200\n");
  root.Write("sys/fs/cgroup/cpu.max", "50000 100000\n");
  EXPECT_EQ(ReadCgroupLimits(root.path()).available_memory_bytes, 0);
  EXPECT_EQ(ReadCgroupLimits(root.path()).num_cores, 0.5);
}

TEST(CgroupTest, Version1HasOneHierarchyPerController) {
  TempFolder root;
  root.Write("proc/self/cgroup", "12:memory:/docker/x\n4:cpu,cpuacct:/docker/y\n1:name=systemd:/\n");
  root.Write("sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes", "1000\n");
  root.Write("sys/fs/cgroup/memory/docker/x/memory.usage_in_bytes", "400\n");
  root.Write("sys/fs/cgroup/memory/docker/x/memory.stat", "inactive_file 1\ntotal_inactive_file 100\n");
  root.Write("sys/fs/cgroup/cpu/docker/y/cpu.cfs_quota_us", "250000\n");
  root.Write("sys/fs/cgroup/cpu/docker/y/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(ReadCgroupLimits(root.path()).available_memory_bytes, 700);
  EXPECT_EQ(ReadCgroupLimits(root.path()).num_cores, 2.5);
  root.Write("sys/fs/cgroup/cpu/docker/y/cpu.cfs_quota_us", "-1\n");
  EXPECT_FALSE(ReadCgroupLimits(root.path()).num_cores.has_value());
}

}  // namespace
}  // namespace switchyard
