// Files: read-only bytes that are mapped or read into memory, small texts, and output that appears
// under its name only when it is complete. The only header that calls the operating system about
// files. File names are byte strings; one that holds a NUL is refused with class path.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#if defined(__linux__)
#include <sys/vfs.h>
#endif

#include "terse/checked.h"
#include "terse/error.h"
#include "terse/tensor.h"

namespace terse {

// A file name for messages: its tail, because that names the file, with foreign bytes escaped.
inline std::string path_text(std::string_view path) {
  constexpr std::size_t kMaxBytes = 160;
  const std::string_view tail =
      path.size() > kMaxBytes ? path.substr(path.size() - kMaxBytes) : path;
  const std::string text = quote(tail, 4 * kMaxBytes);
  return (tail.size() < path.size() ? "..." : "") + text.substr(1, text.size() - 2);
}

namespace detail {

// Throws Error(io): "<path>: could not <action>: <reason of errno>".
[[noreturn]] inline void fail_io(std::string_view path, std::string_view action, int error) {
  fail(ErrorClass::io, path_text(path), ": could not ", action, ": ",
       std::generic_category().message(error));
}

// Calls a system call again for as long as a signal interrupts it.
template <class Call>
auto retry_interrupted(Call&& call) {
  auto result = call();
  while (result == -1 && errno == EINTR) result = call();
  return result;
}

}  // namespace detail

// Owns an open file descriptor.
class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int descriptor) : descriptor_(descriptor) {}
  FileDescriptor(FileDescriptor&& other) noexcept
      : descriptor_(std::exchange(other.descriptor_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    return *this;
  }
  ~FileDescriptor() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }

  int get() const { return descriptor_; }
  // Gives up ownership.
  int release() { return std::exchange(descriptor_, -1); }

 private:
  int descriptor_ = -1;
};

// How MappedFile gets at the bytes. Mapping shares the page cache between processes and loads
// lazily, but a file that another program shortens while it is mapped kills the process with
// SIGBUS; reading cannot be disturbed once it is done.
enum class FileAccess : std::uint8_t {
  automatic,  // map on local file systems, read on network and unknown ones
  map,
  read,
};

// What MappedFile::advise tells the operating system about a range of bytes.
enum class FileAdvice : std::uint8_t { will_need, dont_need };

// A regular file that is open for reading, with the size it had when it was opened.
struct RegularFile {
  FileDescriptor descriptor;
  struct stat status = {};

  // Never blocks: a FIFO or device is refused, not waited for. Throws Error: path (a NUL in the
  // name), io (cannot be opened, or is not a regular file).
  static RegularFile open(const std::string& path) {
    check(path.find('\0') == std::string::npos, ErrorClass::path, path_text(path),
          ": a NUL in a file name");
    const int opened = detail::retry_interrupted(
        [&] { return ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY); });
    if (opened < 0) detail::fail_io(path, "open", errno);
    RegularFile file{FileDescriptor(opened)};
    if (::fstat(opened, &file.status) != 0) detail::fail_io(path, "examine", errno);
    check(!S_ISDIR(file.status.st_mode), ErrorClass::io, path_text(path),
          ": is a folder, expected a file");
    check(S_ISREG(file.status.st_mode), ErrorClass::io, path_text(path),
          ": is a FIFO, socket or device, expected a regular file");
    return file;
  }

  std::size_t size() const { return static_cast<std::size_t>(status.st_size); }

  // Reads the whole file into out (size() bytes). Throws Error(io), also if the file shrank.
  void read(void* out, const std::string& path) const {
    // One call transfers at most 2 GiB on Linux, and fewer bytes where it pleases.
    constexpr std::size_t kMaxChunkBytes = std::size_t{1} << 30;
    std::size_t done = 0;
    while (done < size()) {
      const std::size_t chunk_bytes = std::min(size() - done, kMaxChunkBytes);
      const ssize_t got = detail::retry_interrupted([&] {
        return ::pread(descriptor.get(), static_cast<std::byte*>(out) + done, chunk_bytes,
                       static_cast<off_t>(done));
      });
      if (got < 0) detail::fail_io(path, "read", errno);
      check(got != 0, ErrorClass::io, path_text(path), ": ends at byte ", done,
            " while it is read, expected ", size(), " bytes");
      done += static_cast<std::size_t>(got);
    }
  }

  // Whether the file lies on a file system of this machine, where mapping is safe against a lost
  // connection. Magic numbers: Linux include/uapi/linux/magic.h.
  bool is_local() const {
#if defined(__linux__)
    constexpr std::uint32_t kLocal[] = {
        0xef53,      0x58465342, 0x9123683e, 0x2fc12fc1, 0xf2f52010, 0xca451a4e,  // ext xfs btrfs
        0x01021994,  0x858458f6, 0x794c7630,                                      // tmpfs overlay
        0x73717368,  0xe0f5e1e2, 0x52654973, 0x3153464a, 0x4d44,     0x2011bab0,  // squashfs vfat
        0x7366746eU,
    };
    struct statfs system = {};
    if (::fstatfs(descriptor.get(), &system) != 0) return false;
    return std::find(std::begin(kLocal), std::end(kLocal),
                     static_cast<std::uint32_t>(system.f_type)) != std::end(kLocal);
#else
    return false;
#endif
  }
};

// The bytes of a regular file, read-only, for as long as the object lives.
class MappedFile {
 public:
  // Throws Error: path, io, memory.
  static std::shared_ptr<const MappedFile> open(const std::string& path,
                                                FileAccess access = FileAccess::automatic) {
    return std::shared_ptr<const MappedFile>(new MappedFile(path, access));
  }

  ~MappedFile() {
    if (mapping_ != nullptr) ::munmap(mapping_, size_);
  }
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::string& path() const { return path_; }
  bool is_mapped() const { return mapping_ != nullptr; }
  std::span<const std::byte> bytes() const {
    const void* data = is_mapped() ? mapping_ : buffer_.data();
    return {static_cast<const std::byte*>(data), size_};
  }

  // Asks for [offset, offset + size) to be fetched soon, or lets the system reclaim it (whole pages
  // inside the range; they are read again on the next access). Only a hint: never fails, and does
  // nothing for a range outside the file or a file that was read into memory.
  void advise(FileAdvice advice, std::size_t offset, std::size_t size) const {
    if (!is_mapped() || !range_fits(offset, size, size_)) return;
    const auto page_bytes = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    std::size_t begin = offset / page_bytes * page_bytes;
    std::size_t end = static_cast<std::size_t>(*checked_add(offset, size));
    if (advice == FileAdvice::dont_need) {
      if (begin < offset) begin += page_bytes;
      if (end < size_) end = end / page_bytes * page_bytes;
    }
    if (begin >= end) return;
    ::madvise(static_cast<std::byte*>(mapping_) + begin, end - begin,
              advice == FileAdvice::will_need ? MADV_WILLNEED : MADV_DONTNEED);
  }

  // Throws Error(io) if the file was written to or changed its size since it was opened: what has
  // been read through a mapping is then of two files. To be called when everything has been read.
  void check_unchanged() const {
    if (!is_mapped()) return;
    struct stat now = {};
    if (::fstat(file_.descriptor.get(), &now) != 0) detail::fail_io(path_, "examine", errno);
    const struct stat& then = file_.status;
    check(now.st_size == then.st_size && now.st_mtim.tv_sec == then.st_mtim.tv_sec &&
              now.st_mtim.tv_nsec == then.st_mtim.tv_nsec,
          ErrorClass::io, path_text(path_), ": changed while it was loaded");
  }

 private:
  MappedFile(const std::string& path, FileAccess access)
      : path_(path), file_(RegularFile::open(path)), size_(file_.size()) {
    const bool map =
        access == FileAccess::map || (access == FileAccess::automatic && file_.is_local());
    if (size_ == 0) return;  // an empty range cannot be mapped
    if (!map) {
      buffer_ = AlignedBuffer(size_);
      file_.read(buffer_.data(), path_);
      return;
    }
    void* mapping = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, file_.descriptor.get(), 0);
    if (mapping == MAP_FAILED) detail::fail_io(path_, "map", errno);
    mapping_ = mapping;
  }

  std::string path_;
  RegularFile file_;
  std::size_t size_;
  void* mapping_ = nullptr;
  AlignedBuffer buffer_;
};

// The whole of a small file. Throws Error: path, io, limit (more than max_bytes).
inline std::string read_text_file(const std::string& path, std::size_t max_bytes) {
  const RegularFile file = RegularFile::open(path);
  check(file.size() <= max_bytes, ErrorClass::limit, path_text(path), ": ", file.size(),
        " bytes, at most ", max_bytes, " are read");
  std::string text(file.size(), '\0');
  file.read(text.data(), path);
  return text;
}

// Output that replaces a file only when it is complete: written to a temporary name in the same
// folder, then, by commit(), flushed to the disk and renamed. Until then, and after any failure, a
// file that had the name before is untouched; the destructor removes the temporary one.
class AtomicFile {
 public:
  // Throws Error: path, io (also if `path` is there and is not a regular file).
  explicit AtomicFile(const std::string& path) : path_(path) {
    check(path.find('\0') == std::string::npos, ErrorClass::path, path_text(path),
          ": a NUL in a file name");
    struct stat status = {};
    check(::stat(path.c_str(), &status) != 0 || S_ISREG(status.st_mode), ErrorClass::io,
          path_text(path), ": is not a regular file, cannot be replaced");
    buffer_.reserve(kBufferBytes);
    create_temporary();  // last: the destructor does not run after a constructor that throws
  }
  ~AtomicFile() {
    if (!temporary_.empty()) ::unlink(temporary_.c_str());
  }
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  const std::string& path() const { return path_; }

  // Appends. Throws Error(io).
  void write(std::string_view text) {
    if (buffer_.size() + text.size() > kBufferBytes) flush();
    if (text.size() > kBufferBytes) {
      write_out(text);
    } else {
      buffer_ += text;
    }
  }
  void write(std::span<const std::byte> bytes) {
    write(std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
  }

  // Replaces bytes that were written before, for a header that is known only at the end. Throws
  // Error(io).
  void overwrite(std::size_t offset, std::string_view text) {
    flush();
    while (!text.empty()) {
      const ssize_t written = detail::retry_interrupted([&] {
        return ::pwrite(descriptor_.get(), text.data(), text.size(), static_cast<off_t>(offset));
      });
      if (written < 0) detail::fail_io(path_, "write", errno);
      offset += static_cast<std::size_t>(written);
      text.remove_prefix(static_cast<std::size_t>(written));
    }
  }

  // Makes what was written the content of path(). Throws Error(io). Nothing may be written after.
  void commit() {
    flush();
    if (detail::retry_interrupted([&] { return ::fsync(descriptor_.get()); }) != 0) {
      detail::fail_io(path_, "write to disk", errno);
    }
    // After EINTR from close() the descriptor is gone, so close() is not repeated.
    if (::close(descriptor_.release()) != 0 && errno != EINTR) {
      detail::fail_io(path_, "close", errno);
    }
    if (::rename(temporary_.c_str(), path_.c_str()) != 0) detail::fail_io(path_, "rename", errno);
    temporary_.clear();
  }

 private:
  static constexpr std::size_t kBufferBytes = std::size_t{1} << 16;

  // The process id keeps concurrent writers apart, the counter leftovers of a killed one.
  void create_temporary() {
    const std::size_t slash = path_.rfind('/');
    const std::string folder = slash == std::string::npos ? "" : path_.substr(0, slash + 1);
    for (int attempt = 0;; ++attempt) {
      std::string name =
          folder + ".terse-" + std::to_string(::getpid()) + "-" + std::to_string(attempt) + ".tmp";
      const int opened = detail::retry_interrupted(
          [&] { return ::open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666); });
      if (opened >= 0) {
        descriptor_ = FileDescriptor(opened);
        temporary_ = std::move(name);
        return;
      }
      if (errno != EEXIST) detail::fail_io(path_, "create", errno);
    }
  }
  void flush() {
    write_out(buffer_);
    buffer_.clear();
  }
  void write_out(std::string_view text) {
    while (!text.empty()) {
      const ssize_t written = detail::retry_interrupted(
          [&] { return ::write(descriptor_.get(), text.data(), text.size()); });
      if (written < 0) detail::fail_io(path_, "write", errno);
      text.remove_prefix(static_cast<std::size_t>(written));
    }
  }

  std::string path_;
  std::string temporary_;
  FileDescriptor descriptor_;
  std::string buffer_;
};

}  // namespace terse
