// Opens the files of a model folder, and nothing outside it, whatever the folder's content tries.
//
// Names come from files that may be hostile (the shard names of an index). So: plain names only, regular files only
// (opening a FIFO or a device never blocks), and symbolic links only where they lead to a file inside the folder or,
// for a Hugging Face cache, inside that model's own cache:
//
//   models--org--name/blobs/<hash>                                   the bytes
//   models--org--name/snapshots/<revision>/config.json  ->  ../../blobs/<hash>
//
// Thread-safe: all methods are const.
#ifndef SWITCHYARD_ENGINE_BASE_MODEL_FOLDER_H_
#define SWITCHYARD_ENGINE_BASE_MODEL_FOLDER_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace switchyard {

// Owns one file descriptor.
class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int fd) : fd_(fd) {}
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~FileDescriptor();

  int get() const { return fd_; }
  bool is_open() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

struct OpenedFile {
  FileDescriptor fd;
  int64_t size = 0;  // when it was opened
};

class ModelFolder {
 public:
  // NOT_FOUND: no such folder. INVALID_ARGUMENT: not a folder, or not readable.
  static absl::StatusOr<ModelFolder> Open(const std::string& path);

  // Opens one file for reading. Errors begin with `name`.
  // NOT_FOUND: it is not there. INVALID_ARGUMENT: the name is not a plain file name, the file is not a regular file, or
  // a link leads out of the folder or to nothing.
  absl::StatusOr<OpenedFile> OpenFile(const std::string& name) const;

  // The whole file. As OpenFile; and INVALID_ARGUMENT: it has more than `max_bytes`; DATA_LOSS: reading failed or the
  // file shrank meanwhile.
  absl::StatusOr<std::string> ReadSmallFile(const std::string& name, size_t max_bytes) const;

 private:
  ModelFolder(FileDescriptor root, std::string prefix) : root_(std::move(root)), prefix_(std::move(prefix)) {}

  FileDescriptor root_;  // links may lead anywhere below: the folder, or the cache of this model
  std::string prefix_;   // from root_ to the folder: "" or "snapshots/<revision>/"
};

// Reads exactly `count` bytes at `offset`. DATA_LOSS: `name` and why, when the file ends before or reading fails.
absl::Status ReadAt(const FileDescriptor& fd, const std::string& name, int64_t offset, int64_t count, void* out);

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_BASE_MODEL_FOLDER_H_
