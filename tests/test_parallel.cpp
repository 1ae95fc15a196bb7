#include <doctest/doctest.h>

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <mutex>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "support.h"
#include "terse/parallel.h"

using terse_test::error_class_of;
using terse_test::TemporaryFolder;
using terse_test::write_file;

namespace {

constexpr int kThreadCounts[] = {1, 2, 3, 7, 16};
constexpr std::int64_t kCounts[] = {0, 1, 2, 3, 15, 16, 17, 1000};

std::string message_of_loop(int threads, const std::vector<std::int64_t>& failing, bool dynamic) {
  const auto body = [&](std::int64_t index) {
    for (const std::int64_t bad : failing) {
      if (index == bad) throw std::runtime_error(std::to_string(index));
    }
  };
  try {
    if (dynamic) {
      terse::parallel_dynamic(threads, 100, [&](std::int64_t index, int) { body(index); });
    } else {
      terse::parallel_for(threads, 100, body);
    }
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("every index is visited once") {
  for (const int threads : kThreadCounts) {
    for (const std::int64_t count : kCounts) {
      std::vector<std::atomic<int>> visits(static_cast<std::size_t>(count));
      terse::parallel_for(threads, count,
                          [&](std::int64_t index) { ++visits[static_cast<std::size_t>(index)]; });
      terse::parallel_dynamic(threads, count, [&](std::int64_t index, int worker) {
        if (worker >= 0 && worker < threads) ++visits[static_cast<std::size_t>(index)];
      });
      for (const auto& number : visits) CHECK(number == 2);
    }
  }
  terse::parallel_for(2, -5, [](std::int64_t) { FAIL("an index of an empty loop"); });
  std::atomic<int> calls{0};
  terse::parallel_for(0, 3, [&](std::int64_t) { ++calls; });
  CHECK(calls == 3);
}

TEST_CASE("ranges are contiguous, even, in order of their worker, and always the same") {
  for (const int threads : kThreadCounts) {
    for (const std::int64_t count : kCounts) {
      for (int round = 0; round < 3; ++round) {
        std::vector<std::pair<std::int64_t, std::int64_t>> ranges(16, {-1, -1});
        terse::parallel_ranges(threads, count,
                               [&](std::int64_t begin, std::int64_t end, int worker) {
                                 ranges[static_cast<std::size_t>(worker)] = {begin, end};
                               });
        std::int64_t covered = 0;
        const auto workers = static_cast<std::size_t>(std::min<std::int64_t>(threads, count));
        for (std::size_t worker = 0; worker < workers; ++worker) {
          const auto [begin, end] = ranges[worker];
          CHECK(begin == covered);
          const std::int64_t length = end - begin;
          CHECK(length >= count / threads);
          CHECK(length >= 1);
          CHECK(length <= count / static_cast<std::int64_t>(workers) + 1);
          covered = end;
        }
        CHECK(covered == count);
      }
    }
  }
}

TEST_CASE("a loop throws the exception of the lowest index") {
  for (const int threads : kThreadCounts) {
    for (const bool dynamic : {false, true}) {
      for (int round = 0; round < 20; ++round) {
        CHECK(message_of_loop(threads, {}, dynamic).empty());
        CHECK(message_of_loop(threads, {99}, dynamic) == "99");
        CHECK(message_of_loop(threads, {97, 50, 3, 60}, dynamic) == "3");
        CHECK(message_of_loop(threads, {0, 99}, dynamic) == "0");
      }
    }
  }
  CHECK(error_class_of([] {
          terse::parallel_for(4, 4, [](std::int64_t) { terse::fail(terse::ErrorClass::io, "x"); });
        }) == "io");
}

TEST_CASE("a loop inside a loop stays on its thread") {
  std::atomic<int> calls{0};
  terse::parallel_for(3, 6, [&](std::int64_t) {
    std::int64_t last = -1;
    terse::parallel_dynamic(8, 50, [&](std::int64_t index, int worker) {
      // In order and by one worker: no synchronisation is needed for `last`.
      if (index == last + 1 && worker == 0) last = index;
      ++calls;
    });
    if (last != 49) calls += 1000;
  });
  CHECK(calls == 300);
}

#if defined(_OPENMP)
TEST_CASE("a loop inside the caller's parallel region stays on its thread") {
  int calls = 0;
  std::mutex mutex;
#pragma omp parallel num_threads(3)
  terse::parallel_for(4, 10, [&](std::int64_t) {
    const std::lock_guard<std::mutex> lock(mutex);
    calls += omp_get_level();
  });
  CHECK(calls % 10 == 0);
  CHECK(calls >= 10);
  CHECK(calls <= 30);
}
#endif

TEST_CASE("more workers than the team has threads still all run") {
#if defined(_OPENMP)
  omp_set_dynamic(1);
#endif
  std::vector<int> seen(1024, 0);
  terse::run_workers(1024,
                     [&](int worker) { seen[static_cast<std::size_t>(worker)] = worker + 1; });
  for (int worker = 0; worker < 1024; ++worker) {
    CHECK(seen[static_cast<std::size_t>(worker)] == worker + 1);
  }
#if defined(_OPENMP)
  omp_set_dynamic(0);
#endif
}

TEST_CASE("thread counts") {
  CHECK(terse::available_threads() >= 1);
  CHECK(terse::available_threads() <= terse::kMaxThreads);
  CHECK(terse::thread_count(0) == terse::available_threads());
  CHECK(terse::thread_count(1024) == 1024);
  CHECK(error_class_of([] { terse::thread_count(-1); }) == "range");
  CHECK(error_class_of([] { terse::thread_count(1025); }) == "range");
  setenv("OMP_NUM_THREADS", "1000000", 1);
  CHECK(terse::thread_count(0) <= terse::kMaxThreads);
  unsetenv("OMP_NUM_THREADS");
#if defined(__linux__)
  cpu_set_t before, one;
  REQUIRE(sched_getaffinity(0, sizeof(before), &before) == 0);
  CPU_ZERO(&one);
  for (std::size_t cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++cpu) {
    if (CPU_ISSET(cpu, &before)) CPU_SET(cpu, &one);
  }
  REQUIRE(sched_setaffinity(0, sizeof(one), &one) == 0);
  CHECK(terse::available_threads() == 1);
  REQUIRE(sched_setaffinity(0, sizeof(before), &before) == 0);
#endif
}

TEST_CASE("quotas of control groups, version 2 and 1") {
  using terse::detail::cgroup_quota_threads;
  CHECK(terse::detail::quota_threads(50000, 100000) == 1);
  CHECK(terse::detail::quota_threads(250000, 100000) == 2);
  CHECK(terse::detail::quota_threads(-1, 100000) == terse::kMaxThreads);
  CHECK(terse::detail::quota_threads(100000, 0) == terse::kMaxThreads);

  const TemporaryFolder folder;
  const auto& root = folder.path();
  const std::string table = root / "cgroup";
  const std::string mount = root / "fs";
  CHECK(cgroup_quota_threads(table, mount) == terse::kMaxThreads);

  std::filesystem::create_directories(root / "fs" / "outer" / "inner");
  write_file(table, "12:cpuset:/x\ngarbage\n0::/outer/inner\n");
  CHECK(cgroup_quota_threads(table, mount) == terse::kMaxThreads);
  write_file(root / "fs" / "outer" / "inner" / "cpu.max", "max 100000\n");
  CHECK(cgroup_quota_threads(table, mount) == terse::kMaxThreads);
  write_file(root / "fs" / "outer" / "inner" / "cpu.max", "800000 100000\n");
  CHECK(cgroup_quota_threads(table, mount) == 8);
  write_file(root / "fs" / "outer" / "cpu.max", "350000 100000\n");
  CHECK(cgroup_quota_threads(table, mount) == 3);
  write_file(root / "fs" / "cpu.max", "50000 100000\n");
  CHECK(cgroup_quota_threads(table, mount) == 1);

  // Inside a container the path of the host may not exist; the mount's own quota then counts.
  write_file(table, "0::/of/the/host\n");
  CHECK(cgroup_quota_threads(table, mount) == 1);

  std::filesystem::create_directories(root / "fs" / "cpu,cpuacct" / "job");
  write_file(root / "fs" / "cpu,cpuacct" / "job" / "cpu.cfs_quota_us", "600000\n");
  write_file(root / "fs" / "cpu,cpuacct" / "job" / "cpu.cfs_period_us", "100000\n");
  write_file(table, "4:cpu,cpuacct:/job\n3:cpuset:/job\n");
  CHECK(cgroup_quota_threads(table, mount) == 6);
  write_file(root / "fs" / "cpu,cpuacct" / "job" / "cpu.cfs_quota_us", "-1\n");
  CHECK(cgroup_quota_threads(table, mount) == terse::kMaxThreads);
}
