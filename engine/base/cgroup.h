// What the container leaves this process: control groups, versions 1 and 2.
//
// A limit of any group above the process holds for it too, so the whole path from its own group up to the root of the
// mount is looked at. Inside a container the path of /proc/self/cgroup may not exist there; its root then counts.
#ifndef SWITCHYARD_ENGINE_BASE_CGROUP_H_
#define SWITCHYARD_ENGINE_BASE_CGROUP_H_

#include <cstdint>
#include <optional>
#include <string>

namespace switchyard {

struct CgroupLimits {
  std::optional<int64_t> available_memory_bytes;  // limit less use; page cache that can be dropped is not use
  std::optional<double> num_cores;                // CPU time per wall time: 1.5 for a quota of 150 ms in 100 ms
};

// `root` stands before /proc and /sys, for tests. What cannot be read is no limit.
CgroupLimits ReadCgroupLimits(const std::string& root = "");

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_BASE_CGROUP_H_
