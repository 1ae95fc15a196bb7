// SHA-256 digests of files, for manifests.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "terse/evaluate/lines.h"
#include "terse/sha256.h"

namespace terse {

// The digest of a file. Throws Error: path, io.
inline std::string sha256_of_file(const std::string& path) {
  FileSource file(path);
  Sha256 digest;
  std::vector<char> buffer(std::size_t{1} << 18);
  while (const std::size_t got = file.read(buffer)) digest.add({buffer.data(), got});
  return digest.finish();
}

}  // namespace terse
