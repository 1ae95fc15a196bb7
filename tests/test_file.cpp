#include <doctest/doctest.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "support.h"
#include "terse/file.h"

using terse::FileAccess;
using terse::MappedFile;
using terse_test::error_class_of;
using terse_test::TemporaryFolder;

namespace {

std::string text_of(const MappedFile& file) {
  const auto bytes = file.bytes();
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string class_of_open(const std::string& path) {
  return error_class_of([&] { MappedFile::open(path); });
}

std::size_t files_in(const std::filesystem::path& folder) {
  const std::filesystem::directory_iterator begin(folder);
  return static_cast<std::size_t>(std::distance(begin, std::filesystem::directory_iterator{}));
}

}  // namespace

TEST_CASE("mapped and read bytes are those of the file") {
  const TemporaryFolder folder;
  const std::string path = folder.path() / "bytes";
  for (const std::size_t size : {0UL, 1UL, 4095UL, 4096UL, 4097UL, 1000003UL}) {
    std::string bytes(size, '\0');
    for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>(i * 7 + (i >> 8));
    terse_test::write_file(path, bytes);
    for (const FileAccess access : {FileAccess::automatic, FileAccess::map, FileAccess::read}) {
      const auto file = MappedFile::open(path, access);
      CHECK(text_of(*file) == bytes);
      CHECK(file->path() == path);
      CHECK((access != FileAccess::read || !file->is_mapped()));
      CHECK((access != FileAccess::map || size == 0 || file->is_mapped()));
    }
    CHECK(terse::read_text_file(path, size) == bytes);
  }
}

TEST_CASE("what is not a regular file is refused without waiting for it") {
  const TemporaryFolder folder;
  const std::string fifo = folder.path() / "fifo";
  REQUIRE(mkfifo(fifo.c_str(), 0600) == 0);
  CHECK(class_of_open(fifo) == "io");
  CHECK(class_of_open(folder.path()) == "io");
  CHECK(class_of_open("/dev/zero") == "io");
  CHECK(class_of_open("/dev/null") == "io");
  CHECK(class_of_open(folder.path() / "absent") == "io");
  CHECK(class_of_open("") == "io");
  CHECK(class_of_open(std::string("a\0b", 3)) == "path");
  CHECK(class_of_open(std::string(5000, 'x')) == "io");

  const std::string socket_path = folder.path() / "socket";
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  REQUIRE(socket_path.size() < sizeof(address.sun_path));
  socket_path.copy(address.sun_path, socket_path.size());
  const terse::FileDescriptor listener(socket(AF_UNIX, SOCK_STREAM, 0));
  REQUIRE(bind(listener.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
  CHECK(class_of_open(socket_path) == "io");
}

TEST_CASE("a link to a regular file is followed, a loop of links is an error") {
  const TemporaryFolder folder;
  terse_test::write_file(folder.path() / "file", "text");
  std::filesystem::create_symlink("file", folder.path() / "link");
  std::filesystem::create_symlink("loop", folder.path() / "loop");
  CHECK(text_of(*MappedFile::open(folder.path() / "link")) == "text");
  CHECK(class_of_open(folder.path() / "loop") == "io");
}

TEST_CASE("messages name the file in one line") {
  try {
    MappedFile::open("/absent/" + std::string(300, 'y') + "\n/model.safetensors");
    FAIL("opened a file that is not there");
  } catch (const terse::Error& error) {
    const std::string what = error.what();
    CHECK(what.find("model.safetensors: could not open: No such file") != std::string::npos);
    CHECK(what.find('\n') == std::string::npos);
  }
}

TEST_CASE("advice is only a hint") {
  const TemporaryFolder folder;
  const std::string path = folder.path() / "bytes";
  const std::string bytes(50000, 'b');
  terse_test::write_file(path, bytes);
  for (const FileAccess access : {FileAccess::map, FileAccess::read}) {
    const auto file = MappedFile::open(path, access);
    for (const auto advice : {terse::FileAdvice::will_need, terse::FileAdvice::dont_need}) {
      file->advise(advice, 0, bytes.size());
      file->advise(advice, 1, 20000);
      file->advise(advice, 5000, 1);
      file->advise(advice, 49999, 1);
      file->advise(advice, bytes.size(), 0);
      file->advise(advice, 1, SIZE_MAX);
      file->advise(advice, SIZE_MAX, 1);
    }
    CHECK(text_of(*file) == bytes);
  }
}

TEST_CASE("a mapped file that changes is noticed, a read one cannot change") {
  const TemporaryFolder folder;
  const std::string path = folder.path() / "bytes";
  terse_test::write_file(path, std::string(10000, 'b'));
  const auto mapped = MappedFile::open(path, FileAccess::map);
  const auto read = MappedFile::open(path, FileAccess::read);
  CHECK(error_class_of([&] { mapped->check_unchanged(); }) == "none");
  std::filesystem::resize_file(path, 9000);
  CHECK(error_class_of([&] { mapped->check_unchanged(); }) == "io");
  CHECK(error_class_of([&] { read->check_unchanged(); }) == "none");
  CHECK(text_of(*read) == std::string(10000, 'b'));
}

TEST_CASE("a file replaced under its name leaves the open one as it was") {
  const TemporaryFolder folder;
  const std::string path = folder.path() / "bytes";
  terse_test::write_file(path, "old");
  const auto file = MappedFile::open(path);
  terse::AtomicFile replacement(path);
  replacement.write("new!");
  replacement.commit();
  CHECK(text_of(*file) == "old");
  CHECK(error_class_of([&] { file->check_unchanged(); }) == "none");
  CHECK(text_of(*MappedFile::open(path)) == "new!");
}

TEST_CASE("text files are bounded") {
  const TemporaryFolder folder;
  const std::string path = folder.path() / "text";
  terse_test::write_file(path, "12345");
  CHECK(terse::read_text_file(path, 5) == "12345");
  CHECK(error_class_of([&] { terse::read_text_file(path, 4); }) == "limit");
  CHECK(error_class_of([&] { terse::read_text_file(folder.path() / "absent", 4); }) == "io");
}

TEST_CASE("output appears when it is committed, complete") {
  const TemporaryFolder folder;
  const std::string path = folder.path() / "out";
  std::string expected;
  {
    terse::AtomicFile file(path);
    for (const std::size_t size : {0UL, 1UL, 65535UL, 65536UL, 65537UL, 3UL, 300000UL, 7UL}) {
      const std::string part(size, static_cast<char>('a' + size % 26));
      file.write(part);
      expected += part;
    }
    CHECK(!std::filesystem::exists(path));
    file.commit();
  }
  CHECK(terse_test::read_file(path) == expected);
  CHECK(files_in(folder.path()) == 1);
}

TEST_CASE("output that is not committed leaves no trace and the old file") {
  const TemporaryFolder folder;
  const std::string path = folder.path() / "out";
  terse_test::write_file(path, "old");
  {
    terse::AtomicFile file(path);
    file.write(std::string(200000, 'n'));
  }
  CHECK(terse_test::read_file(path) == "old");
  CHECK(files_in(folder.path()) == 1);
}

TEST_CASE("two writers of one file do not disturb each other") {
  const TemporaryFolder folder;
  const std::string path = folder.path() / "out";
  terse::AtomicFile first(path);
  terse::AtomicFile second(path);
  first.write("first");
  second.write("second");
  second.commit();
  CHECK(terse_test::read_file(path) == "second");
  first.commit();
  CHECK(terse_test::read_file(path) == "first");
}

TEST_CASE("output where none can be is an io error") {
  const TemporaryFolder folder;
  const auto class_of_output = [](const std::string& path) {
    return error_class_of([&] { terse::AtomicFile file(path); });
  };
  CHECK(class_of_output(folder.path() / "absent" / "out") == "io");
  CHECK(class_of_output(folder.path()) == "io");
  CHECK(class_of_output("/dev/null") == "io");
  CHECK(class_of_output(std::string("a\0b", 3)) == "path");
  CHECK(error_class_of([&] {
          terse::AtomicFile file(folder.path() / "out");
          std::filesystem::create_directory(folder.path() / "out");
          file.commit();
        }) == "io");
  CHECK(files_in(folder.path()) == 1);
}

// The limit on file sizes stands in for a full disk: write() fails in the same way, at any byte.
TEST_CASE("a disk that is full at any byte leaves the old file and no temporary one") {
  const TemporaryFolder folder;
  const std::string path = folder.path() / "out";
  terse_test::write_file(path, "old");
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit before = {};
  REQUIRE(getrlimit(RLIMIT_FSIZE, &before) == 0);
  for (const rlim_t limit : {0UL, 1UL, 4096UL, 65536UL, 100000UL, 199999UL}) {
    const rlimit full = {limit, before.rlim_max};
    REQUIRE(setrlimit(RLIMIT_FSIZE, &full) == 0);
    const std::string found = error_class_of([&] {
      terse::AtomicFile file(path);
      for (int part = 0; part < 20; ++part) file.write(std::string(10000, 'n'));
      file.commit();
    });
    REQUIRE(setrlimit(RLIMIT_FSIZE, &before) == 0);
    CHECK(found == "io");
    CHECK(terse_test::read_file(path) == "old");
    CHECK(files_in(folder.path()) == 1);
  }
}
