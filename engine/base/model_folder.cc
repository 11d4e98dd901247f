#include "engine/base/model_folder.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"

namespace switchyard {
namespace {

// O_NONBLOCK: opening a FIFO without a writer must not wait for one. It means nothing for regular files.
constexpr int kFileFlags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;

std::string RealPath(const std::string& path) {
  const std::unique_ptr<char, decltype(&std::free)> real(realpath(path.c_str(), nullptr), &std::free);
  return real == nullptr ? std::string() : std::string(real.get());
}

std::string ErrnoText(int error) {
  const char* const text = strerrordesc_np(error);
  return text == nullptr ? absl::StrCat("error ", error) : std::string(text);
}

// For kernels and sandboxes without openat2: open, then look where that led. EXDEV as openat2 says it.
int OpenAndCheck(int root, const std::string& path) {
  const int fd = openat(root, path.c_str(), kFileFlags);
  if (fd < 0) return fd;
  const std::string real = RealPath(absl::StrCat("/proc/self/fd/", fd));
  const std::string real_root = RealPath(absl::StrCat("/proc/self/fd/", root));
  const bool inside = !real_root.empty() && real.rfind(absl::StrCat(real_root, "/"), 0) == 0;
  if (inside) return fd;
  close(fd);
  errno = EXDEV;
  return -1;
}

int OpenBeneath(int root, const std::string& path) {
  open_how how{};
  how.flags = kFileFlags;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS;
  const long fd = syscall(SYS_openat2, root, path.c_str(), &how, sizeof(how));
  if (fd < 0 && (errno == ENOSYS || errno == EPERM)) return OpenAndCheck(root, path);
  return static_cast<int>(fd);
}

// Control characters are refused because names end up in messages and logs.
absl::Status CheckPlainName(const std::string& name) {
  const bool plain = !name.empty() && name.size() <= NAME_MAX && name != "." && name != ".." &&
                     std::none_of(name.begin(), name.end(),
                                  [](unsigned char c) { return c < 0x20 || c == 0x7f || c == '/'; });
  if (plain) return absl::OkStatus();
  return absl::InvalidArgumentError(
      "a file name of the model has a path or a control character in it, is empty, or is too long");
}

absl::Status OpenError(const std::string& name, int error) {
  if (error == ENOENT) return absl::NotFoundError(absl::StrCat(name, ": not in the model folder"));
  if (error == EXDEV)
    return absl::InvalidArgumentError(absl::StrCat(name, ": is a link that leads out of the model folder"));
  if (error == ENXIO || error == ENODEV)
    return absl::InvalidArgumentError(absl::StrCat(name, ": is not a regular file"));
  return absl::InvalidArgumentError(absl::StrCat(name, ": cannot be opened: ", ErrnoText(error)));
}

}  // namespace

FileDescriptor::~FileDescriptor() {
  if (fd_ >= 0) close(fd_);
}

absl::StatusOr<ModelFolder> ModelFolder::Open(const std::string& path) {
  const std::filesystem::path real = RealPath(path);
  if (real.empty()) return absl::NotFoundError(absl::StrCat("no model folder at ", path));
  std::filesystem::path root = real;
  std::string prefix;
  // Only where the layout is that of a cache: any other folder called snapshots must not widen the fence.
  const std::filesystem::path cache = real.parent_path().parent_path();
  if (real.parent_path().filename() == "snapshots" && cache.filename().string().rfind("models--", 0) == 0) {
    root = cache;
    prefix = absl::StrCat("snapshots/", real.filename().string(), "/");
  }
  FileDescriptor fd(open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  struct stat info {};
  const bool is_folder = fd.is_open() && fstatat(fd.get(), (prefix + ".").c_str(), &info, 0) == 0;
  if (!is_folder) return absl::InvalidArgumentError(absl::StrCat(path, " is not a folder that can be read"));
  return ModelFolder(std::move(fd), std::move(prefix));
}

absl::StatusOr<OpenedFile> ModelFolder::OpenFile(const std::string& name) const {
  RETURN_IF_ERROR(CheckPlainName(name));
  const std::string path = prefix_ + name;
  OpenedFile file{FileDescriptor(OpenBeneath(root_.get(), path))};
  struct stat info {};
  if (!file.fd.is_open()) {
    const int error = errno;
    // Otherwise a file that was there once would pass for one that the model never had.
    if (error == ENOENT && fstatat(root_.get(), path.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0) {
      return absl::InvalidArgumentError(absl::StrCat(name, ": is a link to nothing"));
    }
    return OpenError(name, error);
  }
  if (fstat(file.fd.get(), &info) != 0) return OpenError(name, errno);
  if (!S_ISREG(info.st_mode)) return absl::InvalidArgumentError(absl::StrCat(name, ": is not a regular file"));
  file.size = info.st_size;
  return file;
}

absl::StatusOr<std::string> ModelFolder::ReadSmallFile(const std::string& name, size_t max_bytes) const {
  ASSIGN_OR_RETURN(const OpenedFile file, OpenFile(name));
  if (static_cast<uint64_t>(file.size) > max_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": has ", file.size, " bytes; at most ", max_bytes, " are read"));
  }
  std::string text(static_cast<size_t>(file.size), '\0');
  RETURN_IF_ERROR(ReadAt(file.fd, name, 0, file.size, text.data()));
  return text;
}

absl::Status ReadAt(const FileDescriptor& fd, const std::string& name, int64_t offset, int64_t count, void* out) {
  char* to = static_cast<char*>(out);
  while (count > 0) {
    const ssize_t got = pread(fd.get(), to, static_cast<size_t>(count), offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0)
      return absl::DataLossError(absl::StrCat(name, ": reading at byte ", offset, " failed: ", ErrnoText(errno)));
    if (got == 0)
      return absl::DataLossError(absl::StrCat(name, ": ends at byte ", offset, "; it was longer when it was opened"));
    to += got;
    offset += got;
    count -= got;
  }
  return absl::OkStatus();
}

}  // namespace switchyard
