#include "engine/backend/cpu/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <limits>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/base/cgroup.h"

namespace switchyard::cpu {
namespace {

constexpr int64_t kMapFrom = int64_t{1} << 20;
constexpr int64_t kUnknown = std::numeric_limits<int64_t>::max();

int64_t RoundUp(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

std::optional<int64_t> MemAvailable() {
  std::ifstream file("/proc/meminfo");
  std::string key;
  int64_t kib = 0;
  std::string unit;
  while (file >> key >> kib) {
    if (key == "MemAvailable:") return kib * 1024;
    std::getline(file, unit);
  }
  return std::nullopt;
}

std::string Mib(int64_t bytes) { return absl::StrFormat("%d MiB", (bytes + (1 << 20) - 1) >> 20); }

}  // namespace

int64_t AvailableMemoryBytes() {
  return std::min(MemAvailable().value_or(kUnknown), ReadCgroupLimits().available_memory_bytes.value_or(kUnknown));
}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  std::swap(mapping_, other.mapping_);
  std::swap(mapping_bytes_, other.mapping_bytes_);
  return *this;
}

Buffer::~Buffer() {
  if (mapping_ != nullptr) {
    munmap(mapping_, mapping_bytes_);
  } else {
    std::free(data_);
  }
}

absl::StatusOr<Buffer> Buffer::Allocate(int64_t bytes, const std::string& purpose) {
  Buffer buffer;
  buffer.bytes_ = bytes;
  if (bytes < kMapFrom) {
    const size_t size = static_cast<size_t>(RoundUp(std::max<int64_t>(bytes, 1), 64));
    buffer.data_ = std::aligned_alloc(64, size);
    if (buffer.data_ == nullptr) {
      return absl::ResourceExhaustedError(absl::StrCat(purpose, ": cannot allocate ", size, " bytes"));
    }
    std::memset(buffer.data_, 0, size);
    return buffer;
  }
  const int64_t available = AvailableMemoryBytes();
  if (bytes > available) {
    return absl::ResourceExhaustedError(
        absl::StrCat(purpose, " needs ", Mib(bytes), ", but only ", Mib(available), " are available"));
  }
  // One page more than asked for, so that a 2 MiB boundary lies in the first of them.
  buffer.mapping_bytes_ = static_cast<size_t>(RoundUp(bytes, kHugePage) + kHugePage);
  void* mapping =
      mmap(nullptr, buffer.mapping_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED) {
    return absl::ResourceExhaustedError(absl::StrCat(purpose, ": cannot map ", Mib(bytes)));
  }
  buffer.mapping_ = mapping;
  buffer.data_ = reinterpret_cast<void*>(RoundUp(reinterpret_cast<int64_t>(mapping), kHugePage));
  madvise(buffer.data_, static_cast<size_t>(RoundUp(bytes, kHugePage)), MADV_HUGEPAGE);  // only speed depends on it
  return buffer;
}

}  // namespace switchyard::cpu
