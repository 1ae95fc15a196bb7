// What several test programs need: where the shared reference data lies, files, expected errors.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <optional>
#include <string>

#include "terse/error.h"

namespace terse_test {

// The folder of reference data (TERSE_SHARED, by default beside the source tree), or nothing, said
// on standard error, where it is absent: a test then passes without having looked.
inline std::optional<std::filesystem::path> shared_folder() {
  const char* set = std::getenv("TERSE_SHARED");
  const std::filesystem::path folder =
      set != nullptr ? std::filesystem::path(set)
                     : std::filesystem::path(TERSE_SOURCE_DIR) / ".." / "shared";
  if (std::filesystem::is_directory(folder)) return folder;
  std::cerr << "skipped: no reference data at " << folder << "\n";
  return std::nullopt;
}

inline std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

inline void write_file(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream file(path, std::ios::binary);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

// The class name of the terse::Error that call throws; "none" if it returns.
template <class Call>
std::string error_class_of(Call&& call) {
  try {
    call();
  } catch (const terse::Error& error) {
    return terse::error_class_name(error.error_class());
  }
  return "none";
}

// A folder of its own under the system's temporary folder, removed at the end.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "terse-test-XXXXXX").string();
    path_ = mkdtemp(name.data());
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace terse_test
