// Keeps the disk busy while weights are packed: asks the kernel for the files' bytes in their order, a bounded distance
// ahead of what was read. Only speed depends on it: a loader that takes other tensors first finds them a little later.
#ifndef SWITCHYARD_ENGINE_CHECKPOINT_READ_AHEAD_H_
#define SWITCHYARD_ENGINE_CHECKPOINT_READ_AHEAD_H_

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "engine/checkpoint/safetensors.h"

namespace switchyard {

// Bytes of a file that will be read.
struct FileRange {
  const SafetensorsFile* file = nullptr;
  int64_t begin = 0;
  int64_t end = 0;
};

class ReadAhead {
 public:
  // `ranges` in the order in which they are likely to be read; their files must outlive this.
  explicit ReadAhead(std::vector<FileRange> ranges) : ranges_(std::move(ranges)) {}
  ~ReadAhead();

  // Starts a thread; further calls do nothing. Without a thread to spare nothing is read ahead.
  void Start();

 private:
  void Run();
  // False: stop.
  bool WaitForRoom(int64_t asked) const;

  const std::vector<FileRange> ranges_;
  std::vector<const SafetensorsFile*> files_;  // each once
  int64_t read_before_ = 0;                    // bytes of all files that were read before the start
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_CHECKPOINT_READ_AHEAD_H_
