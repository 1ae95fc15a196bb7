// Bytes kept on disk for as long as the program runs, in a file that has no name.
#pragma once

#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>

#include "terse/error.h"
#include "terse/file.h"

namespace terse_tools {

class ScratchFile {
 public:
  // In the system's folder for temporary files. Throws Error(io).
  ScratchFile() : name_((std::filesystem::temp_directory_path() / "terse-XXXXXX").string()) {
    descriptor_ = terse::FileDescriptor(::mkostemp(name_.data(), O_CLOEXEC));
    if (descriptor_.get() < 0) terse::detail::fail_io(name_, "create", errno);
    ::unlink(name_.c_str());
  }

  // Where the bytes now are. Throws Error(io).
  std::uint64_t append(std::string_view bytes) {
    const std::uint64_t offset = size_;
    while (!bytes.empty()) {
      const ssize_t written = terse::detail::retry_interrupted([&] {
        return ::pwrite(descriptor_.get(), bytes.data(), bytes.size(), static_cast<off_t>(size_));
      });
      if (written < 0) terse::detail::fail_io(name_, "write", errno);
      bytes.remove_prefix(static_cast<std::size_t>(written));
      size_ += static_cast<std::uint64_t>(written);
    }
    return offset;
  }

  int descriptor() const { return descriptor_.get(); }
  const std::string& name() const { return name_; }

 private:
  std::string name_;
  terse::FileDescriptor descriptor_;
  std::uint64_t size_ = 0;
};

// [offset, offset + size) of an open file. Throws Error(io), also if the file ends before.
inline std::string read_range(int descriptor, std::uint64_t offset, std::size_t size,
                              std::string_view name) {
  std::string bytes(size, '\0');
  for (std::size_t done = 0; done < size;) {
    const ssize_t got = terse::detail::retry_interrupted([&] {
      return ::pread(descriptor, bytes.data() + done, size - done,
                     static_cast<off_t>(offset + done));
    });
    if (got < 0) terse::detail::fail_io(name, "read", errno);
    terse::check(got != 0, terse::ErrorClass::io, terse::path_text(name), ": ends at byte ",
                 offset + done, ", it has changed while it was read");
    done += static_cast<std::size_t>(got);
  }
  return bytes;
}

}  // namespace terse_tools
