#include "server/access/watched_files.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <system_error>

#include "engine/base/model_folder.h"

namespace switchyard {
namespace {

constexpr off_t kMaxFileBytes = off_t{1} << 20;

absl::StatusOr<std::string> ReadFile(const WatchedFile& file) {
  const std::string named = file.setting + " " + file.path;
  // Opening a FIFO must not block.
  const FileDescriptor fd(open(file.path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat info {};
  if (!fd.is_open() || fstat(fd.get(), &info) != 0) {
    return absl::InvalidArgumentError(named + " cannot be read: " + std::generic_category().message(errno));
  }
  if (!S_ISREG(info.st_mode)) return absl::InvalidArgumentError(named + " is not a regular file");
  if (info.st_size > kMaxFileBytes) {
    return absl::InvalidArgumentError(named + " has " + std::to_string(info.st_size) + " bytes; at most " +
                                      std::to_string(kMaxFileBytes) + " are read");
  }
  std::string text(static_cast<size_t>(info.st_size), '\0');
  RETURN_IF_ERROR(ReadAt(fd, named, 0, info.st_size, text.data()));
  return text;
}

}  // namespace

FileContents ReadFiles(const std::vector<WatchedFile>& files) {
  FileContents contents;
  for (const WatchedFile& file : files) {
    absl::StatusOr<std::string> text = ReadFile(file);
    if (!text.ok()) return {{}, std::string(text.status().message())};
    contents.texts.push_back(*std::move(text));
  }
  return contents;
}

}  // namespace switchyard
