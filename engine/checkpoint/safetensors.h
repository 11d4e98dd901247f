// One safetensors file: checks the header completely, then reads bytes.
//
//   byte 0      u64, little endian: N, the length of the header
//   byte 8      N bytes of JSON: {"<tensor>": {"dtype": "BF16", "shape": [64, 32], "data_offsets": [0, 4096]}, ...,
//               "__metadata__": {string: string}}
//   byte 8 + N  the data; row-major, little endian. The tensors tile it: no hole, no overlap, nothing left over.
//
// Reads with pread, never by mapping the file: a mapped file that is cut short while it is read kills the process.
// Source: the format text and the checks of the reference (safetensors, tensor.rs); where this is stricter, the header
// of tests/engine/checkpoint/safetensors_differential_test.py says so.
#ifndef SWITCHYARD_ENGINE_CHECKPOINT_SAFETENSORS_H_
#define SWITCHYARD_ENGINE_CHECKPOINT_SAFETENSORS_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/base/dtype.h"
#include "engine/base/model_folder.h"

namespace switchyard {

// An element type that the format knows. Only the first three can be read as weights.
struct StoredType {
  const char* name;  // as in the file: "BF16"
  int bits;
  bool is_readable;
  DType dtype;  // when readable
};

struct StoredTensor {
  static constexpr int kMaxRank = 8;

  std::string name;
  const StoredType* type = nullptr;
  int rank = 0;
  std::array<int64_t, kMaxRank> dims{};
  int64_t begin = 0;  // byte in the file
  int64_t end = 0;

  std::span<const int64_t> shape() const { return {dims.data(), static_cast<size_t>(rank)}; }
};

// Largest header that is read, and most tensors in it: several times those of the largest published checkpoints.
inline constexpr int64_t kMaxHeaderBytes = 100'000'000;
inline constexpr size_t kMaxTensors = 250'000;

// The tensors of a header in the order of their bytes. `data_begin` and `data_end` bound the data in the file.
// INVALID_ARGUMENT: the header breaks a rule of the format; names the file and the tensor or the byte.
absl::StatusOr<std::vector<StoredTensor>> ParseSafetensorsHeader(std::string_view header, const std::string& file_name,
                                                                 int64_t data_begin, int64_t data_end);

// Thread-safe after Open.
class SafetensorsFile {
 public:
  // As ModelFolder::OpenFile and ParseSafetensorsHeader; DATA_LOSS: the header could not be read.
  static absl::StatusOr<std::unique_ptr<SafetensorsFile>> Open(const ModelFolder& folder, const std::string& name);

  const std::string& name() const { return name_; }
  const std::vector<StoredTensor>& tensors() const { return tensors_; }

  // Reads `count` bytes from byte `offset` of the file. DATA_LOSS: the file became shorter, or reading failed.
  absl::Status Read(int64_t offset, int64_t count, void* out) const {
    bytes_read_.fetch_add(count, std::memory_order_relaxed);
    return ReadAt(fd_, name_, offset, count, out);
  }

  // Asks the kernel to fetch these bytes; returns before they are there.
  void WillRead(int64_t offset, int64_t count) const;
  // By all Reads so far.
  int64_t bytes_read() const { return bytes_read_.load(std::memory_order_relaxed); }

 private:
  SafetensorsFile(std::string name, FileDescriptor fd, std::vector<StoredTensor> tensors)
      : name_(std::move(name)), fd_(std::move(fd)), tensors_(std::move(tensors)) {}

  std::string name_;
  FileDescriptor fd_;
  std::vector<StoredTensor> tensors_;
  mutable std::atomic<int64_t> bytes_read_{0};
};

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_CHECKPOINT_SAFETENSORS_H_
