// A value that is made of the contents of some files, and made anew when they change.
#ifndef SWITCHYARD_SERVER_ACCESS_WATCHED_FILES_H_
#define SWITCHYARD_SERVER_ACCESS_WATCHED_FILES_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/base/mutex.h"
#include "engine/base/status_macros.h"

namespace switchyard {

// What one look at the files saw: all contents, in order, or why there are none.
struct FileContents {
  std::vector<std::string> texts;
  std::string problem;

  bool operator==(const FileContents&) const = default;
};

struct WatchedFile {
  std::string setting;  // that names it, for messages
  std::string path;
};

// At most 1 MiB of each regular file.
FileContents ReadFiles(const std::vector<WatchedFile>& files);

// Open and Look: one thread at a time. current: any thread.
template <typename Value>
class WatchedFiles {
 public:
  // INVALID_ARGUMENT: what is wrong with these contents.
  using Make = std::function<absl::StatusOr<Value>(const std::vector<std::string>& texts)>;

  WatchedFiles(std::vector<WatchedFile> files, Make make) : files_(std::move(files)), make_(std::move(make)) {}

  // The first value.
  absl::Status Open() {
    const FileContents contents = ReadFiles(files_);
    return Take(contents);
  }

  // Looks once. Nothing: the files are as before, or not yet twice the same. OK: there is a new value. An error, once
  // per change: why there is none; the old value stays.
  std::optional<absl::Status> Look() {
    FileContents contents = ReadFiles(files_);
    if (contents != seen_) {
      seen_ = std::move(contents);
      refused_.clear();
      return std::nullopt;
    }
    if (contents == taken_) return std::nullopt;
    const absl::Status result = Take(contents);
    if (!result.ok() && result.message() == refused_) return std::nullopt;
    refused_ = std::string(result.message());
    return result;
  }

  std::shared_ptr<const Value> current() const {
    MutexLock lock(&mutex_);
    return current_;
  }

 private:
  absl::Status Take(const FileContents& contents) {
    if (!contents.problem.empty()) return absl::InvalidArgumentError(contents.problem);
    ASSIGN_OR_RETURN(Value value, make_(contents.texts));
    auto made = std::make_shared<const Value>(std::move(value));
    taken_ = seen_ = contents;
    MutexLock lock(&mutex_);
    current_ = std::move(made);
    return absl::OkStatus();
  }

  const std::vector<WatchedFile> files_;
  const Make make_;
  FileContents taken_;   // of the current value
  FileContents seen_;    // by the latest look
  std::string refused_;  // what was last reported about seen_; time alone can change it (a certificate's dates)

  mutable Mutex mutex_;
  std::shared_ptr<const Value> current_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace switchyard

#endif  // SWITCHYARD_SERVER_ACCESS_WATCHED_FILES_H_
