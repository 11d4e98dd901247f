#include "engine/base/cgroup.h"

#include <algorithm>
#include <fstream>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace switchyard {
namespace {

std::optional<int64_t> ReadNumber(const std::string& path) {
  std::ifstream file(path);
  int64_t value = 0;
  if (!(file >> value)) return std::nullopt;  // also "max"
  return value;
}

int64_t ReadField(const std::string& path, const std::string& field) {
  std::ifstream file(path);
  std::string key;
  int64_t value = 0;
  while (file >> key >> value) {
    if (key == field) return value;
  }
  return 0;
}

template <typename T>
void Lower(std::optional<T>* limit, T value) {
  *limit = std::min(limit->value_or(value), value);
}

// Page cache that the group can drop counts as free: a checkpoint just read must not look like used memory.
void AddMemory(std::optional<int64_t> max, std::optional<int64_t> used, int64_t droppable, CgroupLimits* limits) {
  if (max && used) Lower(&limits->available_memory_bytes, std::max<int64_t>(0, *max - *used + droppable));
}

void AddVersion2(const std::string& folder, CgroupLimits* limits) {
  AddMemory(ReadNumber(folder + "/memory.max"), ReadNumber(folder + "/memory.current"),
            ReadField(folder + "/memory.stat", "inactive_file"), limits);
  std::ifstream cpu(folder + "/cpu.max");
  double quota = 0.0, period = 0.0;
  if (cpu >> quota >> period && quota > 0.0 && period > 0.0) Lower(&limits->num_cores, quota / period);
}

void AddVersion1Memory(const std::string& folder, CgroupLimits* limits) {
  AddMemory(ReadNumber(folder + "/memory.limit_in_bytes"), ReadNumber(folder + "/memory.usage_in_bytes"),
            ReadField(folder + "/memory.stat", "total_inactive_file"), limits);
}

void AddVersion1Cpu(const std::string& folder, CgroupLimits* limits) {
  const std::optional<int64_t> quota = ReadNumber(folder + "/cpu.cfs_quota_us");
  const std::optional<int64_t> period = ReadNumber(folder + "/cpu.cfs_period_us");
  if (quota && period && *quota > 0 && *period > 0) {  // a quota of -1 is none
    Lower(&limits->num_cores, static_cast<double>(*quota) / static_cast<double>(*period));
  }
}

// The folders of a group and of all groups above it.
std::vector<std::string> UpToRoot(const std::string& mount, std::string path) {
  std::vector<std::string> folders;
  for (; !path.empty() && path[0] == '/'; path.resize(path.rfind('/'))) folders.push_back(mount + path);
  folders.push_back(mount);
  return folders;
}

}  // namespace

CgroupLimits ReadCgroupLimits(const std::string& root) {
  CgroupLimits limits;
  const std::string mount = root + "/sys/fs/cgroup";
  std::ifstream file(root + "/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {  // "4:cpu,cpuacct:/path"; version 2: "0::/path"
    const std::vector<std::string> parts = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (parts.size() != 3) continue;
    if (parts[1].empty()) {
      for (const std::string& folder : UpToRoot(mount, parts[2])) AddVersion2(folder, &limits);
    }
    for (const absl::string_view controller : absl::StrSplit(parts[1], ',')) {
      for (const std::string& folder : UpToRoot(absl::StrCat(mount, "/", controller), parts[2])) {
        if (controller == "memory") AddVersion1Memory(folder, &limits);
        if (controller == "cpu") AddVersion1Cpu(folder, &limits);
      }
    }
  }
  return limits;
}

}  // namespace switchyard
